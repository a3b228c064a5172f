//! The room on the disk of the inbox.

use std::path::Path;

use super::findings::{Findings, Mark};
use crate::{
    inbox::{DiskSpace, Inbox},
    words::Lang,
};

const MIB: u64 = 1024 * 1024;
/// With less, one import could fill the disk, and the inbox would refuse events.
const LEAST: u64 = 64 * MIB;
const ENOUGH: u64 = 512 * MIB;
/// The inbox itself, a rewrite of its file, and a copy.
const TIMES_THE_INBOX: u64 = 3;

pub(super) fn check(path: &Path, findings: &mut Findings) {
    let mut section = findings.on("inbox");
    match Inbox::space(path) {
        Ok(space) => section.add(mark(space), text(space, section.reader.lang)),
        Err(error) => section.warn(
            format!("the free space of its disk cannot be told: {error}"),
            format!("не удалось узнать, сколько места на диске: {error}"),
        ),
    }
}

fn mark(DiskSpace { free, size }: DiskSpace) -> Mark {
    if free < LEAST {
        Mark::Bad
    } else if free < ENOUGH || free / TIMES_THE_INBOX < size {
        Mark::Advice
    } else {
        Mark::Good
    }
}

fn text(space: DiskSpace, lang: Lang) -> String {
    let (size, free) = (space.size.div_ceil(MIB), space.free / MIB);
    let told = lang.pick(
        format!("it takes {size} MiB, and {free} MiB of its disk are free"),
        format!("занимает {size} МиБ, на диске свободно {free} МиБ"),
    );
    if mark(space) == Mark::Good {
        return told;
    }
    let todo = lang.pick(
        "make room: on a full disk events are refused (503) and nothing is sent",
        "освободите место: на полном диске события не принимаются (503) и отправка остановлена",
    );
    format!("{told}; {todo}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_advice_and_hardly_any_a_failure() {
        let table = [
            (64 * MIB - 1, 0, Mark::Bad),
            (64 * MIB, 0, Mark::Advice),
            (512 * MIB - 1, 0, Mark::Advice),
            (512 * MIB, 0, Mark::Good),
            (1_000 * MIB, 400 * MIB, Mark::Advice),
            (1_200 * MIB, 400 * MIB, Mark::Good),
        ];
        for (free, size, expected) in table {
            let space = DiskSpace { free, size };
            assert_eq!(mark(space), expected, "{space:?}");
            let text = text(space, Lang::English);
            assert_eq!(text.contains("make room"), expected != Mark::Good, "{text}");
        }
    }
}
