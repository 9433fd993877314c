//! End of a file of the log, which tells where its chain goes on.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use super::chain::{self, Mac};

/// End of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Id of the chain.
    pub chain: String,
    /// Number of lines.
    pub lines: u64,
    /// MAC of the last line.
    pub mac: Mac,
}

/// End of a file when it was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// End of the chain. `None` if the file is empty or its last line can't be parsed.
    pub last: Option<Link>,
    /// Bytes of an incomplete last line. It was never acknowledged.
    pub torn: u64,
}

/// Reads up to the last whole line. Returns its end.
pub(super) fn read_tail(file: &File) -> io::Result<(u64, Tail)> {
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let (mut line, mut last, mut chain) = (vec![], vec![], None);
    let mut end = 0;
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if line.last() != Some(&b'\n') {
            let last = chain.and_then(|chain| link(chain, &last));
            return Ok((end, Tail { last, torn: read }));
        }
        end += read;
        line.pop();
        if line.windows(BEGIN.len()).any(|window| window == BEGIN) {
            chain = value(&line).and_then(|value| Some(value.get("chain")?.as_str()?.to_owned())).or(chain);
        }
        std::mem::swap(&mut last, &mut line);
    }
}

const BEGIN: &[u8] = br#""kind":"begin""#;

fn link(chain: String, line: &[u8]) -> Option<Link> {
    let (_, mac) = chain::split_line(std::str::from_utf8(line).ok()?)?;
    Some(Link { chain, lines: value(line)?.get("seq")?.as_u64()?, mac })
}

fn value(line: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(line).ok()
}
