//! Reads the log of a container as text that is safe to show.

use super::client::Client;
use super::failure::Failure;
use super::request::{ApiRequest, Verb};
use super::url::escaped;
use crate::account::Reservation;
use std::fmt;
use std::io::Read;
use std::time::Instant;

/// Bytes of a log that are asked for, and of the text that is made of them.
pub(super) const MAX_LOG: usize = 1 << 20;
/// Bytes that are reserved for each log while it is read, so that few are: a node that does not answer must not take the calls of dispatches.
pub(crate) const LOG_ANSWER: usize = MAX_LOG + 3 * STEP;
/// Bytes by which the text's memory grows.
const STEP: usize = 32 << 10;
const BUFFER: usize = 4 << 10;

/// Text without control characters but newline and tab.
pub(crate) struct Log {
    pub(crate) text: Vec<u8>,
    pub(crate) memory: Reservation,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.text.len())
    }
}

impl PartialEq for Log {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Whose log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Which {
    pub(crate) pod: String,
    pub(crate) container: String,
    /// Lines, the last ones.
    pub(crate) tail: u32,
    /// Of the run before.
    pub(crate) previous: bool,
    /// The run has ended.
    pub(crate) has_ended: bool,
}

impl Client {
    /// Reads a log. `memory`: [`LOG_ANSWER`] for its text.
    pub(crate) fn log(
        &mut self,
        namespace: &str,
        which: &Which,
        memory: Reservation,
        until: Instant,
    ) -> Result<Log, Failure> {
        let Which { tail, previous, .. } = which;
        let (pod, container) = (escaped(&which.pod), escaped(&which.container));
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&tailLines={tail}&previous={previous}&limitBytes={MAX_LOG}"
        );
        let mut response =
            self.call(ApiRequest { verb: Verb::Log, path: &path, body: None, until })?.expect("", 200)?;
        let read = read_text(&mut response.whole_body(), memory);
        read.map_err(|error| (response.read_error)(error))
    }
}

impl Log {
    /// Whether the kubelet says in place of the log that there is none: it does so with code 200.
    pub(crate) fn is_missing(&self) -> bool {
        self.text.starts_with(b"unable to retrieve container logs for ") && !self.text.trim_ascii_end().contains(&b'\n')
    }
}

/// Reads text in UTF-8. What is none, and control characters, become U+FFFD; what they mean in a terminal is done where text needs it: see
/// [`Screen`]. What exceeds [`MAX_LOG`] is cut off.
fn read_text(log: &mut dyn Read, mut memory: Reservation) -> std::io::Result<Log> {
    let (mut screen, mut buffer, mut held) = (Screen::default(), [0; BUFFER], 0);
    loop {
        let read = log.read(&mut buffer[held..])?;
        held += read;
        // each byte becomes three at most, and so do those of an unfinished sequence
        let text = &mut screen.text;
        if text.capacity() - text.len() < 3 * (BUFFER + MAX_SEQUENCE) {
            text.reserve_exact(text.capacity() + STEP - text.len())
        }
        let mut rest = &buffer[..held];
        while !rest.is_empty() {
            let (valid, bad) = match std::str::from_utf8(rest) {
                Ok(_) => (rest.len(), 0),
                // the rest of a character may still come
                Err(error) => (error.valid_up_to(), error.error_len().unwrap_or(if read > 0 { 0 } else { rest.len() })),
            };
            std::str::from_utf8(&rest[..valid]).unwrap_or_default().chars().for_each(|c| screen.see(c));
            rest = &rest[valid..];
            if bad == 0 {
                break;
            }
            screen.see(char::REPLACEMENT_CHARACTER);
            rest = &rest[bad.min(rest.len())..]
        }
        let left = rest.len();
        buffer.copy_within(held - left..held, 0);
        held = left;
        if read == 0 || screen.text.len() > MAX_LOG {
            let mut text = screen.finish();
            text.truncate(text.floor_char_boundary(MAX_LOG));
            text.shrink_to_fit();
            memory.shrink(text.capacity());
            return Ok(Log { text: text.into_bytes(), memory });
        }
    }
}

/// Bytes of a color sequence.
const MAX_SEQUENCE: usize = 32;

/// Text as one reads it in a terminal: CRLF ends a line, a CR alone starts it again, and color sequences (`ESC [ … m`, ECMA-48 8.3.117) are left out.
#[derive(Debug, Default)]
struct Screen {
    text: String,
    /// Where the last line begins.
    line: usize,
    /// A CR came last.
    is_returned: bool,
    /// A sequence that has begun, from its ESC on.
    sequence: String,
}

impl Screen {
    fn see(&mut self, c: char) {
        if !self.sequence.is_empty() {
            match c {
                'm' if self.sequence.len() > 1 => return self.sequence.clear(),
                '[' if self.sequence.len() == 1 => return self.sequence.push(c),
                '0'..='9' | ';' | ':' if (2..MAX_SEQUENCE).contains(&self.sequence.len()) => {
                    return self.sequence.push(c);
                }
                _ => self.end_sequence(),
            }
        }
        match c {
            '\r' => self.is_returned = true,
            '\u{1b}' => self.sequence.push(c),
            c => self.put(c),
        }
    }

    /// What had begun was no color sequence.
    fn end_sequence(&mut self) {
        for c in std::mem::take(&mut self.sequence).chars() {
            self.put(c)
        }
    }

    fn put(&mut self, c: char) {
        if std::mem::take(&mut self.is_returned) && c != '\n' {
            self.text.truncate(self.line)
        }
        self.text.push(if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c });
        if c == '\n' {
            self.line = self.text.len()
        }
    }

    fn finish(mut self) -> String {
        self.end_sequence();
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Account, ByKind, Kind};

    /// Gives a few bytes at a time.
    struct Pieces<'p>(&'p [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let most = self.1.min(into.len());
            (&mut self.0).take(most as u64).read(into)
        }
    }

    fn memory(bytes: usize) -> Reservation {
        Account::new(ByKind::default(), bytes).try_reserve(Kind::Answer, bytes).unwrap()
    }

    fn text(log: &[u8], piece: usize) -> String {
        let log = read_text(&mut Pieces(log, piece), memory(LOG_ANSWER)).unwrap();
        assert!(log.memory.bytes() >= log.text.len() && log.text.len() <= MAX_LOG);
        String::from_utf8(log.text).unwrap()
    }

    #[test]
    fn a_log_becomes_safe_text() {
        let log = "a\tb\n\u{1b}[31;1mr\u{e9}d\u{1b}[m\u{9b}\u{7f}\r\n\u{0}😀".as_bytes();
        for piece in [1, 2, 3, 7, 9999] {
            assert_eq!(text(log, piece), "a\tb\nr\u{e9}d\u{fffd}\u{fffd}\n\u{fffd}😀", "{piece}");
            assert_eq!(text(b"\xff\xc3x\xe2\x82", piece), "\u{fffd}\u{fffd}x\u{fffd}", "{piece}");
            assert_eq!(text(b"", piece), "");
        }
    }

    #[test]
    fn it_is_text_as_one_reads_it() {
        for (log, want) in [
            ("10%\r50%\r100%\r\ndone\r", "100%\ndone"),
            ("a\r\n\r\nb\r\r\n", "a\n\nb\n"),
            ("one\ntwo\rthree", "one\nthree"),
            ("\r\u{1b}[32mok\u{1b}[0m\r\u{1b}[31mbad", "bad"),
            ("\u{1b}[2Kx\u{1b}x\u{1b}[38:2:1:2:3mx\u{1b}[", "\u{fffd}[2Kx\u{fffd}xx\u{fffd}["),
            ("\u{1b}\u{1b}[1mx", "\u{fffd}x"),
        ] {
            for piece in [1, 5, 9999] {
                assert_eq!(text(log.as_bytes(), piece), want, "{log:?}")
            }
        }
        let long = format!("\u{1b}[{}mx", "1;".repeat(MAX_SEQUENCE));
        assert!(text(long.as_bytes(), 9999).starts_with("\u{fffd}[1;1;"), "sequences have a bound");
    }

    #[test]
    fn what_the_kubelet_says_in_place_of_a_log_is_known() {
        let is_missing = |text: &str| Log { text: text.into(), memory: memory(1) }.is_missing();
        assert!(is_missing("unable to retrieve container logs for containerd://0123"));
        assert!(is_missing("unable to retrieve container logs for containerd://0123\n"));
        assert!(!is_missing("unable to retrieve container logs for containerd://0123\nand more"));
        assert!(!is_missing("") && !is_missing("x unable to retrieve container logs for y"));
    }

    #[test]
    fn it_is_bounded() {
        let long = "é".repeat(MAX_LOG);
        assert_eq!(text(long.as_bytes(), 4000).len(), MAX_LOG);
        assert_eq!(text(&b"\x01".repeat(MAX_LOG), 4000).len(), MAX_LOG / 3 * 3);
    }
}
