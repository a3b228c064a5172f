//! A copy of the inbox beside its owner.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use sqlx::{ConnectOptions, Connection};

use super::{Cause, Damaged, HALF_REPLACED, is_emptied, plain, replace, sibling};
use crate::inbox::InboxError;

/// The copy has its name only once it is complete and synced.
pub(in crate::inbox) async fn copy(from: &Path, to: &Path) -> Result<u64, InboxError> {
    let cannot = |source: Cause| InboxError::Copy {
        to: to.to_owned(),
        source: source.into(),
    };
    if to.symlink_metadata().is_ok() {
        return Err(cannot("the file exists already".into()));
    }
    if is_emptied(from) {
        return Err(cannot(Damaged::new(super::EMPTIED).into()));
    }
    if replace::is_begun(from).is_ok_and(|is_begun| is_begun) {
        return Err(cannot(HALF_REPLACED.into()));
    }
    let part = sibling(to, &format!(".part-{:08x}", rand::random::<u32>()));
    let copied = match write(from, &part).await {
        Ok(bytes) => publish(&part, to).map(|()| bytes).map_err(Cause::from),
        Err(cause) => Err(Damaged::or(cause)),
    };
    if copied.is_err() {
        // The first error is the one to report; without a folder there is no such file.
        let _ = fs::remove_file(&part);
    }
    copied.map_err(cannot)
}

async fn write(from: &Path, part: &Path) -> Result<u64, Cause> {
    let name = part.to_str().ok_or("its name is no UTF-8")?;
    // SQLite writes into a file that exists and is empty, and keeps its mode.
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(part)?;
    let mut conn = plain(from).connect().await?;
    let copied = sqlx::query("VACUUM INTO ?")
        .bind(name)
        .execute(&mut conn)
        .await;
    let closed = conn.close().await;
    copied?;
    closed?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

/// Unlike a rename, a link does not replace a file that was made meanwhile.
fn publish(part: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(part, to) {
        Ok(()) => fs::remove_file(part)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        // Not every file system knows links.
        Err(_) => fs::rename(part, to)?,
    }
    replace::sync_folder(to)
}
