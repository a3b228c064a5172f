//! The Supabase CLI on a copy of our project folder, without Docker, without an account and without the network.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::api::tool;
use crate::postgres::Cluster;

pub(super) struct SupabaseCli {
    folder: TempDir,
}

pub(super) struct Answer {
    pub(super) succeeded: bool,
    pub(super) out: String,
    pub(super) err: String,
}

impl SupabaseCli {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("supabase");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(project)
            .arg(folder.path())
            .status();
        assert!(copied.unwrap().success());
        let cli = Self { folder };
        assert!(cli.run(&["telemetry", "disable"]).succeeded);
        cli
    }

    /// `db push`. Answers what it said.
    pub(super) fn push(&self, cluster: &Cluster) -> String {
        let answer = self.on(cluster, &["db", "push", "--yes"]);
        assert!(answer.succeeded, "{}{}", answer.out, answer.err);
        format!("{}{}", answer.out, answer.err)
    }

    /// What `db advisors` has to say of a database, without what it only mentions.
    pub(super) fn advice(&self, cluster: &Cluster) -> BTreeSet<String> {
        let answer = self.on(cluster, &["db", "advisors", "--level", "warn"]);
        assert!(answer.succeeded, "{}{}", answer.out, answer.err);
        let findings: Vec<Value> = serde_json::from_str(&answer.out).unwrap();
        let keys = findings
            .iter()
            .map(|finding| finding["cache_key"].as_str().unwrap());
        keys.map(str::to_owned).collect()
    }

    pub(super) fn on(&self, cluster: &Cluster, args: &[&str]) -> Answer {
        let remote = format!("--remote={}", cluster.url("postgres"));
        self.run(&[args, &[&remote]].concat())
    }

    fn run(&self, args: &[&str]) -> Answer {
        // A proxy that is not there: it may talk to this machine only.
        let nobody = "http://127.0.0.1:9";
        let output = Command::new(tool("supabase"))
            .env_clear()
            .env("HOME", self.folder.path())
            .env("PATH", "/usr/bin:/bin")
            .env("DO_NOT_TRACK", "1")
            .env("PGSSLMODE", "disable")
            .env("HTTP_PROXY", nobody)
            .env("HTTPS_PROXY", nobody)
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Answer {
            succeeded: output.status.success(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
