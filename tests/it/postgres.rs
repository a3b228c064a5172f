//! A throw-away Postgres with what a Supabase project has on it (`platform.sql`): one cluster per test, gone with the test.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::{
        fs::{chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const PLATFORM: &str = include_str!("platform.sql");
/// The migration before those of [`MIGRATION`], as it was released.
pub(crate) const FORMER_MIGRATION: &str =
    include_str!("../../supabase/migrations/20261122000000_tripwire_sync.sql");
pub(crate) const MIGRATION: &str = concat!(
    include_str!("../../supabase/migrations/20261128000000_tripwire_sync.sql"),
    include_str!("../../supabase/migrations/20261129000000_tripwire_sync_by_time.sql"),
    include_str!("../../supabase/migrations/20261130000000_tripwire_sync_pause.sql"),
);
pub(crate) const DOWN: &str = include_str!("../../supabase/down.sql");

/// Where the webhook goes, and the secret it is signed with, after [`Cluster::configure`].
pub(crate) const WEBHOOK_URL: &str = "https://sync.example.org/webhooks/supabase";
pub(crate) const WEBHOOK_SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=";

/// A running cluster in a folder of its own.
pub(crate) struct Cluster {
    server: Server,
    installation: Installation,
    folder: TempDir,
}

impl Cluster {
    /// The platform alone: no migration, nothing in Vault.
    pub(crate) fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// As [`Self::start`], with settings of the server (`name=value`), and with extensions that no package has on offer.
    pub(crate) fn start_with(settings: &[&str], extensions: &[Extension]) -> Self {
        let mut installation = Installation::find();
        installation.settings = settings.iter().map(|&it| it.to_owned()).collect();
        let template = template(&installation);
        let folder = installation.folder();
        copy_tree(&template, &folder.path().join("data"));
        if !extensions.is_empty() {
            installation.offer(extensions, folder.path());
        }
        let server = Server::start(&installation, folder.path());
        Self {
            server,
            installation,
            folder,
        }
    }

    /// The platform with our migration applied, and URL and secret in Vault.
    pub(crate) fn configured() -> Self {
        let cluster = Self::start();
        cluster.apply_migration();
        cluster.configure(WEBHOOK_URL, WEBHOOK_SECRET);
        cluster
    }

    /// As pasted into the dashboard: one message, role `postgres`. Returns what it said on the way.
    pub(crate) fn apply_migration(&self) -> String {
        self.run("postgres", MIGRATION).unwrap().notices
    }

    pub(crate) fn configure(&self, url: &str, secret: &str) {
        for (name, value) in [
            ("tripwire_webhook_url", url),
            ("tripwire_webhook_secret", secret),
        ] {
            self.sql_as(
                "postgres",
                &format!("select vault.create_secret('{value}', '{name}')"),
            )
            .unwrap();
        }
    }

    /// As [`Self::configure`], over what may be in Vault already.
    pub(crate) fn configure_again(&self) {
        self.sql_as("postgres", "delete from vault.secrets")
            .unwrap();
        self.configure(WEBHOOK_URL, WEBHOOK_SECRET);
    }

    /// What `sql` prints, run as one message; the roles of the Data API are taken on through `authenticator`.
    pub(crate) fn sql_as(&self, role: &str, sql: &str) -> Result<String, SqlError> {
        self.run(role, sql).map(|reply| reply.rows)
    }

    /// Like [`Self::sql_as`], with the notices and warnings.
    pub(crate) fn run(&self, role: &str, sql: &str) -> Result<Reply, SqlError> {
        let output = self
            .psql(role)
            .args(["-c", sql])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let notices = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            let rows = String::from_utf8(output.stdout).unwrap();
            Ok(Reply {
                rows: rows.trim_end().to_owned(),
                notices,
            })
        } else {
            Err(SqlError(notices))
        }
    }

    /// For programs that connect by TCP.
    pub(crate) fn url(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/postgres", self.server.port)
    }

    /// Ends at once, as when one of its processes was killed: unlogged tables are empty afterwards.
    pub(crate) fn crash(&mut self) {
        self.server.stop("QUIT");
    }

    /// After a crash, on the same port.
    pub(crate) fn recover(&mut self) {
        let port = self.server.port;
        self.server = Server::try_start(&self.installation, self.folder.path(), port)
            .expect("its port was taken by somebody else");
    }

    /// A connection that stays open between statements.
    pub(crate) fn session(&self, role: &str) -> Session {
        let mut child = self
            .psql(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Session {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Requests waiting in `pg_net`'s queue, oldest first.
    pub(crate) fn queued(&self) -> Vec<Queued> {
        let rows = self
            .sql_as(
                "supabase_admin",
                "select jsonb_build_object('url', url, 'headers', headers, 'timeout', timeout_milliseconds,
                        'body', translate(encode(body, 'base64'), e'\\n', ''))
                   from net.http_request_queue order by id",
            )
            .unwrap();
        rows.lines().map(Queued::parse).collect()
    }

    /// Schema and roles as `pg_dump` writes them: equal texts mean that nothing was added, changed or left behind.
    pub(crate) fn schema(&self) -> String {
        let schema = self.dump("pg_dump", &["--schema-only", "--dbname=postgres"]);
        let roles = self.dump("pg_dumpall", &["--roles-only"]);
        format!("{schema}{roles}")
    }

    fn dump(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(self.installation.bin.join(program))
            .env_clear()
            .args(arguments)
            .args(["--username=supabase_admin", "--host"])
            .arg(self.folder.path())
            .arg(format!("--port={}", self.server.port))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // Newer versions begin and end with a random token.
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// What `pg_prove` says of these files, run as `postgres`.
    pub(crate) fn prove(&self, files: &[String]) -> std::io::Result<String> {
        let output = Command::new("pg_prove")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .arg("--psql-bin")
            .arg(self.installation.bin.join("psql"))
            .args(["--username", "postgres", "--dbname", "postgres", "--host"])
            .arg(self.folder.path())
            .args(["--port", &self.server.port.to_string()])
            .args(files)
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    fn psql(&self, role: &str) -> Command {
        psql(
            &self.installation,
            self.folder.path(),
            self.server.port,
            role,
        )
    }
}

/// What the platform makes of `pg_net` up to 0.11: it runs as its owner, and only the platform's roles may call it.
pub(crate) const OLDER_PG_NET: &str = "
    alter function net.http_post(text, jsonb, jsonb, jsonb, integer) security definer;
    alter function net.http_post(text, jsonb, jsonb, jsonb, integer) set search_path = net;
    revoke all on function net.http_post(text, jsonb, jsonb, jsonb, integer) from public;
    grant execute on function net.http_post(text, jsonb, jsonb, jsonb, integer)
      to postgres, anon, authenticated, service_role;
    revoke all on all tables in schema net from public;
    revoke all on all sequences in schema net from public;
    grant all on all tables in schema net to postgres";

/// An extension as the server finds it on its disk.
pub(crate) struct Extension {
    pub(crate) name: &'static str,
    /// Of its program.
    pub(crate) version: &'static str,
    /// Whether the owner of a database may switch it on, or a superuser alone.
    pub(crate) is_trusted: bool,
    /// Its objects are in this schema, which it makes itself.
    pub(crate) schema: Option<&'static str>,
    pub(crate) script: &'static str,
}

/// `pg_net`, whose objects [`PLATFORM`] has made already.
pub(crate) const PG_NET: Extension = Extension {
    name: "pg_net",
    version: "0.20.4",
    is_trusted: true,
    schema: None,
    script: "",
};

/// Vault, for a project in which it is not switched on.
pub(crate) fn vault(is_trusted: bool) -> Extension {
    let (_, vault) = PLATFORM.split_once("create schema vault;\n").unwrap();
    let (script, _) = vault.split_once("create schema auth;").unwrap();
    Extension {
        name: "supabase_vault",
        version: "0.3.1",
        is_trusted,
        schema: Some("vault"),
        script,
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) rows: String,
    /// NOTICE and WARNING lines with their codes.
    pub(crate) notices: String,
}

/// What psql wrote to its error output, the SQLSTATE in it.
pub(crate) struct SqlError(String);

impl SqlError {
    pub(crate) fn sqlstate(&self) -> &str {
        let after = self.0.split("ERROR:  ").nth(1).unwrap_or_default();
        after.split(':').next().unwrap_or_default()
    }
}

impl fmt::Debug for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request as `pg_net` would send it.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout_milliseconds: u64,
}

impl Queued {
    pub(crate) fn parse(line: &str) -> Self {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        Self {
            url: row["url"].as_str().unwrap().to_owned(),
            headers: serde_json::from_value(row["headers"].clone()).unwrap(),
            body: STANDARD.decode(row["body"].as_str().unwrap()).unwrap(),
            timeout_milliseconds: row["timeout"].as_u64().unwrap(),
        }
    }
}

/// One psql that is spoken to line by line.
pub(crate) struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    /// Sends without waiting; [`Self::reply`] takes the answer.
    pub(crate) fn send(&mut self, sql: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{sql};\n\\echo {END}").unwrap();
    }

    pub(crate) fn reply(&mut self) -> String {
        let lines = self.stdout.by_ref().lines().map(Result::unwrap);
        let reply: Vec<_> = lines.take_while(|line| line != END).collect();
        reply.join("\n")
    }

    pub(crate) fn sql(&mut self, sql: &str) -> String {
        self.send(sql);
        self.reply()
    }

    /// `None`: it failed, or the server is gone.
    pub(crate) fn try_sql(&mut self, sql: &str) -> Option<String> {
        let stdin = self.stdin.as_mut()?;
        writeln!(stdin, "{sql};\n\\echo {END}").ok()?;
        let mut reply = Vec::new();
        for line in self.stdout.by_ref().lines() {
            let line = line.ok()?;
            if line == END {
                return Some(reply.join("\n"));
            }
            reply.push(line);
        }
        None
    }
}

const END: &str = "end-of-reply";

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The postmaster. Started as our own child, so that a test runner that ends our process group ends it too.
struct Server {
    child: Child,
    port: u16,
    installation: Installation,
}

impl Server {
    /// On `folder/data`, with its socket in `folder`; ready for connections on return.
    fn start(installation: &Installation, folder: &Path) -> Self {
        // A port that was free a moment ago may be taken by now.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(installation, folder, free_port()) {
                return server;
            }
        }
        panic!("Postgres does not start on any of five free ports");
    }

    fn try_start(installation: &Installation, folder: &Path, port: u16) -> Option<Self> {
        let mut child = installation
            .command("postgres")
            .arg("-D")
            .arg(folder.join("data"))
            .arg("-k")
            .arg(folder)
            .args(["-p", &port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "fsync=off", "-c", "full_page_writes=off"])
            .args(["-c", "shared_buffers=16MB", "-c", "max_connections=40"])
            .args(installation.settings.iter().flat_map(|it| ["-c", it]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self {
            child,
            port,
            installation: installation.clone(),
        };

        let mut said = String::new();
        while !said.contains("is ready to accept connections") {
            if log.read_line(&mut said).unwrap() == 0 {
                server.child.wait().unwrap();
                assert!(said.contains("could not bind"), "{said}");
                return None;
            }
        }
        // Nobody reads the rest, and a full pipe would stop the server.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Some(server)
    }

    /// With `INT` it closes its files first, with `QUIT` it just goes.
    fn stop(&mut self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = self
            .installation
            .command("pg_ctl")
            .args(["kill", signal, &pid])
            .status();
        if !sent.is_ok_and(|status| status.success()) {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop("QUIT");
        }
    }
}

/// Where the server's programs are, and the account to run them under.
#[derive(Clone)]
struct Installation {
    bin: PathBuf,
    /// Postgres refuses to run as root; then it is the account `postgres`.
    account: Option<(u32, u32)>,
    /// A copy of the server's program, beside which it finds more extensions.
    server: Option<PathBuf>,
    settings: Vec<String>,
}

impl Installation {
    fn find() -> Self {
        let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let bin = debian
            .map(|version| version.unwrap().path().join("bin"))
            .chain(ask("pg_config", &["--bindir"]).map(PathBuf::from))
            .find(|bin| bin.join("postgres").exists())
            .expect("PostgreSQL 15 or newer is needed: apt-get install postgresql");
        let id = |args: &[&str]| ask("id", args).and_then(|id| id.parse().ok());
        let account = (id(&["-u"]) == Some(0)).then(|| {
            id(&["-u", "postgres"])
                .zip(id(&["-g", "postgres"]))
                .expect("as root, the tests need the account `postgres` to run the server")
        });
        Self {
            bin,
            account,
            server: None,
            settings: Vec::new(),
        }
    }

    /// Copies the server into `folder`: it looks for extensions beside itself, and the real place is not ours to write to.
    fn offer(&mut self, extensions: &[Extension], folder: &Path) {
        let share = self.share();
        let common: PathBuf = self
            .bin
            .components()
            .zip(share.components())
            .take_while(|(bin, share)| bin == share)
            .map(|(component, _)| component)
            .collect();
        let copied = |path: &Path| {
            folder
                .join("copy")
                .join(path.strip_prefix(&common).unwrap())
        };
        let (bin, copied_share) = (copied(&self.bin), copied(&share));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(copied_share.parent().unwrap()).unwrap();
        fs::copy(self.bin.join("postgres"), bin.join("postgres")).unwrap();
        copy_tree(&share, &copied_share);
        let libraries = bin.parent().unwrap().join("lib");
        fs::create_dir(&libraries).unwrap();
        for library in fs::read_dir(self.bin.parent().unwrap().join("lib")).unwrap() {
            let library = library.unwrap();
            symlink(library.path(), libraries.join(library.file_name())).unwrap();
        }

        for extension in extensions {
            let Extension {
                name,
                version,
                is_trusted,
                schema,
                script,
            } = extension;
            let schema = match schema {
                Some(schema) => format!("relocatable = false\nschema = {schema}\n"),
                None => "relocatable = true\n".to_owned(),
            };
            let control =
                format!("default_version = '{version}'\ntrusted = {is_trusted}\n{schema}");
            let folder = copied_share.join("extension");
            fs::write(folder.join(format!("{name}.control")), control).unwrap();
            fs::write(folder.join(format!("{name}--{version}.sql")), script).unwrap();
            // Something that can be preloaded, and does nothing by itself.
            let library = libraries.join(format!("{name}.so"));
            symlink(libraries.join("auto_explain.so"), library).unwrap();
        }
        self.server = Some(bin.join("postgres"));
    }

    /// Where the extensions are.
    fn share(&self) -> PathBuf {
        match self.bin.strip_prefix("/usr/lib/postgresql") {
            Ok(version) => Path::new("/usr/share/postgresql").join(version.parent().unwrap()),
            Err(_) => ask(self.bin.join("pg_config"), &["--sharedir"])
                .unwrap()
                .into(),
        }
    }

    fn command(&self, program: &str) -> Command {
        let usual = self.bin.join(program);
        let mut command = Command::new(match &self.server {
            Some(server) if program == "postgres" => server,
            _ => &usual,
        });
        // Not our folder: the account may not be allowed into it.
        command.env_clear().env("LC_ALL", "C").current_dir("/");
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// A temporary folder that the server may write to.
    fn folder(&self) -> TempDir {
        let folder = tempfile::Builder::new()
            .prefix("tripwire-pg-")
            .tempdir()
            .unwrap();
        if let Some((uid, gid)) = self.account {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        folder
    }
}

/// A stopped cluster with the platform on it, made once and copied by every test.
fn template(installation: &Installation) -> PathBuf {
    let store = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let version = ask(installation.bin.join("postgres"), &["--version"]).unwrap();
    let fingerprint = Sha256::digest(format!("{version}{:?}{PLATFORM}", installation.account));
    let name = URL_SAFE_NO_PAD.encode(&fingerprint[..9]);
    let template = store.join(format!("postgres-{name}"));

    let lock = File::create(store.join("postgres.lock")).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let folder = installation.folder();
        make_template(installation, folder.path());
        let unfinished = store.join(format!("postgres-{name}.unfinished"));
        drop(fs::remove_dir_all(&unfinished));
        copy_tree(&folder.path().join("data"), &unfinished);
        fs::rename(&unfinished, &template).unwrap();
    }
    template
}

fn make_template(installation: &Installation, folder: &Path) {
    let initdb = installation
        .command("initdb")
        .args(["--username=supabase_admin", "--auth=trust", "--no-sync"])
        .args(["--encoding=UTF8", "--locale=C", "--wal-segsize=1"])
        .arg("-D")
        .arg(folder.join("data"))
        .output()
        .unwrap();
    assert!(
        initdb.status.success(),
        "{}",
        String::from_utf8_lossy(&initdb.stderr)
    );

    let mut server = Server::start(installation, folder);
    let platform = psql(installation, folder, server.port, "supabase_admin")
        .args(["-c", PLATFORM])
        .output()
        .unwrap();
    assert!(
        platform.status.success(),
        "{}",
        String::from_utf8_lossy(&platform.stderr)
    );
    server.stop("INT");
}

fn psql(installation: &Installation, folder: &Path, port: u16, role: &str) -> Command {
    let mut command = Command::new(installation.bin.join("psql"));
    let api_role = matches!(
        role,
        "anon" | "authenticated" | "service_role" | "tripwire_sync"
    );
    command
        .env_clear()
        .env("PGCLIENTENCODING", "UTF8")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
        .args(["-v", "VERBOSITY=verbose", "-d", "postgres", "-h"])
        .arg(folder)
        .args(["-p", &port.to_string()])
        .args(["-U", if api_role { "authenticator" } else { role }]);
    if api_role {
        command.env("PGOPTIONS", format!("-c role={role}"));
    }
    command
}

/// With owners and modes: a server refuses a data folder that others could read.
fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn ask(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| answer.trim().to_owned())
}
