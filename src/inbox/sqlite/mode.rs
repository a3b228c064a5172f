//! The rights on the files.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::sibling;

const OTHERS: u32 = 0o077;

/// The inbox and its side files that other accounts may open, with their modes.
pub(in crate::inbox) fn open_to_others(path: &Path) -> Vec<(PathBuf, u32)> {
    let files = ["", "-wal", "-shm"].map(|suffix| sibling(path, suffix));
    let modes = files.into_iter().filter_map(|file| {
        let mode = file.metadata().ok()?.permissions().mode() & 0o777;
        Some((file, mode))
    });
    modes.filter(|(_, mode)| mode & OTHERS != 0).collect()
}

/// Takes the rights of others away. Where that is denied, the service works all the same.
pub(super) fn close_to_others(path: &Path) {
    for (file, mode) in open_to_others(path) {
        let mended = close(&file, mode);
        let mode = format!("{mode:04o}");
        let file = file.display();
        match mended {
            Ok(()) => tracing::warn!(%file, mode, "inbox.closed_to_others"),
            Err(error) => tracing::warn!(%file, mode, %error, "inbox.open_to_others"),
        }
    }
}

fn close(file: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(file, Permissions::from_mode(mode & !OTHERS))
}
