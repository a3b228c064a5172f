//! The service's binary as a child of this process, that can be killed, stopped and started again.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::time::{Instant, interval};

/// In the service's folder.
pub(crate) const INBOX: &str = "inbox.db";
/// How often to look at a log or a process.
const GLANCE: Duration = Duration::from_millis(10);
/// Far longer than a start takes.
const START: Duration = Duration::from_secs(30);
/// More than the service gives itself.
const END: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Service {
    binary: PathBuf,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
    starts: usize,
}

/// Nothing outlives the driver.
impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

impl Service {
    pub(crate) fn new(
        binary: &Path,
        folder: &Path,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        Self {
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            environment,
            child: None,
            starts: 0,
        }
    }

    /// Starts a process, and does not wait for anything.
    pub(crate) fn spawn(&mut self) -> Result<(), String> {
        self.starts += 1;
        let log =
            File::create(self.log(self.starts)).map_err(|error| format!("no log file: {error}"))?;
        let child = Command::new(&self.binary)
            .arg("serve")
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{} cannot be run: {error}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the process listens. Answers where.
    pub(crate) async fn listening(&mut self) -> Result<SocketAddr, String> {
        let limit = Instant::now() + START;
        let mut ticks = interval(GLANCE);
        while Instant::now() < limit {
            ticks.tick().await;
            let log = fs::read_to_string(self.log(self.starts)).unwrap_or_default();
            let started = log.lines().find(|line| line.contains("service.started"));
            if let Some(line) = started {
                let line: Value =
                    serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
                let address = line["address"].as_str().and_then(|text| text.parse().ok());
                return address.ok_or_else(|| format!("no address in {line}"));
            }
            self.lives()?;
        }
        Err(format!("start {} does not listen", self.starts))
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// An error if the process has ended by itself.
    pub(crate) fn lives(&mut self) -> Result<(), String> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait().map_err(|error| error.to_string())?,
            None => None,
        };
        match ended {
            None => Ok(()),
            Some(status) => Err(format!("start {} ended by itself: {status}", self.starts)),
        }
    }

    pub(crate) fn kill(&mut self) -> io::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGSTOP: it stands still, with all it has open.
    pub(crate) fn halt(&self) -> Result<(), String> {
        self.signal("STOP")
    }

    pub(crate) fn go_on(&self) -> Result<(), String> {
        self.signal("CONT")
    }

    /// Stops it as a platform does, and waits.
    pub(crate) async fn terminate(&mut self) -> Result<ExitStatus, String> {
        self.signal("TERM")?;
        let limit = Instant::now() + END;
        let mut ticks = interval(GLANCE);
        while Instant::now() < limit {
            ticks.tick().await;
            let Some(child) = &mut self.child else { break };
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                self.child = None;
                return Ok(status);
            }
        }
        Err("SIGTERM does not end it".to_owned())
    }

    /// What all processes so far had to say.
    pub(crate) fn logs(&self) -> String {
        let logs =
            (1..=self.starts).map(|start| fs::read_to_string(self.log(start)).unwrap_or_default());
        logs.collect()
    }

    pub(crate) fn inbox(&self) -> PathBuf {
        self.folder.join(INBOX)
    }

    pub(crate) fn log(&self, start: usize) -> PathBuf {
        self.folder.join(format!("service-{start:02}.log"))
    }

    fn signal(&self, name: &str) -> Result<(), String> {
        let Some(pid) = self.pid() else {
            return Err(format!("nobody to send SIG{name} to"));
        };
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {pid}")])
            .status();
        match sent {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("SIG{name} was not sent: {status}")),
            Err(error) => Err(format!("no shell: {error}")),
        }
    }
}
