//! Gives the program its version with the commit and the commit's date: `0.1.0 (48337d7b25 2026-11-30)`.
//!
//! A debug build has no commit, since each commit would make all of it build anew.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script by the environment"
)]

use std::{env, path::Path, process::Command};

/// Where there is no repository, as in an image: the commit and its date.
const COMMIT: &str = "TRIPWIRE_COMMIT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let is_debug = env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    let given = env::var(COMMIT).ok().map(|it| it.trim().to_owned());
    let commit = given
        .filter(|it| !it.is_empty())
        .or_else(|| if is_debug { None } else { of_git() });
    let version = match commit {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo::rustc-env=TRIPWIRE_VERSION={version}");
}

/// `None`: no git, or the repository is another one, in which these sources lie.
fn of_git() -> Option<String> {
    let root = git(&["rev-parse", "--show-toplevel"])?;
    let ours = env::var("CARGO_MANIFEST_DIR").ok()?;
    if Path::new(&root).canonicalize().ok()? != Path::new(&ours).canonicalize().ok()? {
        return None;
    }
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "logs/HEAD", branch.as_str(), "packed-refs"] {
        // A file that is not there would make each build a new one.
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && !name.is_empty()
            && Path::new(&path).is_file()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&[
        "log",
        "-1",
        "--no-show-signature",
        "--abbrev=10",
        "--format=%h %cs",
    ])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
