//! How much room the inbox takes, how much its disk has left, and whether the file can shrink.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use sqlx::SqliteConnection;

use super::{Cause, LOG, sibling};
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

/// `PRAGMA auto_vacuum`: free pages can be given back a few at a time.
const INCREMENTAL: i64 = 2;

/// Times its own size that must be free before the file is rewritten: SQLite writes it twice.
const ROOM_TO_REWRITE: u64 = 3;

/// Sets the file up for giving free pages back. That takes one rewrite of the file, which is done at a start, before any
/// delivery waits for it. A new file is still empty. With too little room on the disk it is left to a later start.
pub(super) async fn let_it_shrink(conn: &mut SqliteConnection, path: &Path) -> Result<(), Cause> {
    let mode: i64 = sqlx::query_scalar("PRAGMA auto_vacuum")
        .fetch_one(&mut *conn)
        .await?;
    if mode == INCREMENTAL {
        return Ok(());
    }
    let DiskSpace { free, size } = space(path)?;
    if free / ROOM_TO_REWRITE < size {
        return Err("the disk has too little room to rewrite the file".into());
    }
    // Else a rewrite that is cut off, for its time or its memory, would begin anew at each start.
    let mut marker = path.as_os_str().to_owned();
    marker.push(".rewriting");
    let marker = Path::new(&marker);
    if marker.try_exists()? {
        return Err("the last rewrite of the file was cut off; remove inbox.db.rewriting beside it to try again".into());
    }
    fs::write(marker, "")?;
    let rewritten = rewrite(conn).await;
    fs::remove_file(marker)?;
    rewritten
}

async fn rewrite(conn: &mut SqliteConnection) -> Result<(), Cause> {
    let mut run = async |statement: &'static str| sqlx::query(statement).execute(&mut *conn).await;
    run("PRAGMA auto_vacuum = INCREMENTAL").await?;
    // The whole file may not fit into memory.
    run("PRAGMA temp_store = FILE").await?;
    let rewritten = run("VACUUM").await;
    run("PRAGMA temp_store = MEMORY").await?;
    rewritten?;
    // The log holds the whole file by now.
    run("PRAGMA wal_checkpoint(TRUNCATE)").await?;
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
