//! What `--version` says, and what the build script makes of a repository.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::program::Launch;

#[tokio::test]
async fn the_program_tells_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let told = Launch::new(folder.path(), &["--version"]).run().await;
    told.assert_code(0);
    let version = concat!("tripwire-sync ", env!("CARGO_PKG_VERSION"));
    let rest = told.out.trim().strip_prefix(version).unwrap();
    assert!(
        rest.is_empty() || rest.starts_with(" (") && rest.ends_with(')'),
        "{rest}"
    );
}

/// The build script as a program of its own, in a folder that it takes for the package.
struct Script {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Script {
    fn compiled() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("build-script");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let status = Command::new(compiler)
            .args(["--edition", "2024", "-o"])
            .args([&program, &source])
            .status();
        assert!(status.unwrap().success());
        Self { folder, program }
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// The version, and the files whose change would make it run again.
    fn run(&self, package: &Path, profile: &str, commit: &str) -> (String, Vec<String>) {
        let output = Command::new(&self.program)
            .current_dir(package)
            .env("CARGO_PKG_VERSION", "1.2.3")
            .env("CARGO_MANIFEST_DIR", package)
            .env("PROFILE", profile)
            .env("TRIPWIRE_COMMIT", commit)
            // The repository of the folder above is none of ours.
            .env("GIT_CEILING_DIRECTORIES", self.folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let after = |start: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(start));
            lines.map(str::to_owned).collect()
        };
        let [version] = &after("cargo::rustc-env=TRIPWIRE_VERSION=")[..] else {
            panic!("{text}");
        };
        (version.clone(), after("cargo::rerun-if-changed="))
    }
}

fn git(folder: &Path, args: &[&str]) {
    let done = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@example.kz"])
        .args(args)
        .current_dir(folder)
        .env("GIT_COMMITTER_DATE", "2026-11-30T12:00:00Z")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .status();
    assert!(done.unwrap().success(), "{args:?}");
}

#[test]
fn a_build_names_its_commit_and_needs_no_repository() {
    let script = Script::compiled();
    let plain = script.folder("plain");
    assert_eq!(script.run(&plain, "release", "").0, "1.2.3");
    let given = script.run(&plain, "release", "48337d7b25 2026-11-30\n").0;
    assert_eq!(given, "1.2.3 (48337d7b25 2026-11-30)");

    let ours = script.folder("ours");
    git(&ours, &["init", "--quiet"]);
    assert_eq!(script.run(&ours, "release", "").0, "1.2.3", "no commit yet");
    git(&ours, &["commit", "--quiet", "--allow-empty", "-m", "a"]);
    let (version, files) = script.run(&ours, "release", "");
    let commit = version
        .strip_prefix("1.2.3 (")
        .and_then(|it| it.strip_suffix(" 2026-11-30)"));
    let is_hash = |it: &str| it.len() == 10 && it.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(commit.is_some_and(is_hash), "{version}");
    // HEAD, its log and its branch; a file that is not there would make each build a new one.
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(files.iter().any(|file| file == ".git/HEAD"), "{files:?}");
    // Else each commit would make a developer's tests build anew.
    assert_eq!(script.run(&ours, "debug", "").0, "1.2.3");

    // Sources unpacked inside another repository.
    let unpacked = script.folder("ours/unpacked");
    assert_eq!(script.run(&unpacked, "release", "").0, "1.2.3");
}
