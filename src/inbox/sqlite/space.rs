//! How much room the inbox takes, and how much its disk has left.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use super::{LOG, sibling};
use crate::inbox::DiskSpace;

/// Asks the operating system. Before the first start there is no file, and perhaps no folder: then the size is 0, and the
/// nearest folder that exists tells the disk.
pub(in crate::inbox) fn space(path: &Path) -> io::Result<DiskSpace> {
    let mut size = 0;
    for suffix in ["", LOG] {
        size += match sibling(path, suffix).metadata() {
            Ok(file) => file.len(),
            Err(error) if is_absent(&error) => 0,
            Err(error) => return Err(error),
        };
    }
    // A relative path has the empty path above it, which is the current folder.
    for folder in path.ancestors().skip(1) {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        match rustix::fs::statvfs(folder).map_err(io::Error::from) {
            Ok(disk) => {
                return Ok(DiskSpace {
                    free: disk.f_bavail.saturating_mul(disk.f_frsize),
                    size,
                });
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::NotFound.into())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
