//! Whether the files of the inbox are still the ones that were opened.
//!
//! Writes to a file that was removed, replaced or moved are lost, and a second owner may use another file of that name.
//! SQLite does not notice.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{LOCK, LOG};

/// The database, the lock of its owner, the write-ahead log.
const SUFFIXES: [&str; 3] = ["", LOCK, LOG];

/// Device and inode: a name may have been given to another file.
type FileId = (u64, u64);

#[derive(Debug, thiserror::Error)]
#[error("{path} was removed, replaced or moved while it was open")]
struct FileLost {
    path: PathBuf,
}

#[derive(Debug)]
pub(super) struct Files {
    /// Of the database.
    path: PathBuf,
    /// In the order of [`SUFFIXES`]; `None`: not seen yet.
    opened: [Option<FileId>; 3],
    is_lost: bool,
}

impl Files {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            opened: [None; 3],
            is_lost: false,
        }
    }

    /// A loss is final: what happened to the files meanwhile is unknown.
    pub(super) fn are_lost(&self) -> bool {
        self.is_lost
    }

    /// `is_log_held`: a connection that stays open has opened the log, so that no close of another one removes it.
    pub(super) fn look(&mut self, is_log_held: bool) -> io::Result<()> {
        for (suffix, opened) in SUFFIXES.into_iter().zip(&mut self.opened) {
            if suffix == LOG && !is_log_held {
                continue;
            }
            let mut path = self.path.as_os_str().to_owned();
            path.push(suffix);
            let path = PathBuf::from(path);
            let found = id(&path)?;
            self.is_lost |= opened.is_some() && *opened != found;
            if self.is_lost {
                return Err(io::Error::other(FileLost { path }));
            }
            *opened = found;
        }
        Ok(())
    }
}

fn id(path: &Path) -> io::Result<Option<FileId>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
