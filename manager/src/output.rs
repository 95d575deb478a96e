//! What processes print: cut into lines, kept for exit records, and shown under the process's name.
//!
//! All of it is in memory that is bounded, whatever a process writes.

use protocol::limits::{OUTPUT_LINE_BYTES_MAX, STDERR_TAIL_BYTES};

/// One line, or a piece of a line that is too long; the newline is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    /// What was written.
    pub bytes: &'a [u8],
    /// The line goes on in the next piece.
    pub continues: bool,
}

/// Cuts a stream of bytes into lines.
///
/// A line longer than [`OUTPUT_LINE_BYTES_MAX`] comes in pieces, cut between characters. The same bytes give the same
/// lines, in whatever portions they arrive.
#[derive(Default, Debug)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes, and gives each line that they complete to `emit`.
    pub fn feed(&mut self, bytes: &[u8], mut emit: impl FnMut(Line<'_>)) {
        for portion in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut rest, is_whole) = match portion.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (portion, false),
            };
            while self.partial.len() + rest.len() > OUTPUT_LINE_BYTES_MAX {
                let (now, later) = rest.split_at(OUTPUT_LINE_BYTES_MAX - self.partial.len());
                self.partial.extend_from_slice(now);
                rest = later;
                let cut = character_boundary(&self.partial);
                emit(Line { bytes: &self.partial[..cut], continues: true });
                self.partial.drain(..cut);
            }
            self.partial.extend_from_slice(rest);
            if is_whole {
                emit(Line { bytes: &self.partial, continues: false });
                self.partial.clear();
                self.partial.shrink_to(KEPT_BYTES);
            }
        }
    }

    /// Gives the last line to `emit` if no newline has ended it, and starts anew.
    pub fn finish(&mut self, emit: impl FnOnce(Line<'_>)) {
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            emit(Line { bytes: &rest, continues: false });
        }
    }
}

/// How much memory a stream keeps between its lines.
const KEPT_BYTES: usize = 1 << 10;

/// The end of the last whole character: the length, or up to three bytes less when a character has only begun.
fn character_boundary(bytes: &[u8]) -> usize {
    let is_start = |byte: u8| byte & 0b1100_0000 != 0b1000_0000;
    match bytes.iter().rev().take(3).position(|byte| is_start(*byte)) {
        Some(behind) => {
            let start = bytes.len() - 1 - behind;
            let character_bytes = bytes[start].leading_ones() as usize;
            if (behind + 2..=4).contains(&character_bytes) { start } else { bytes.len() }
        }
        None => bytes.len(),
    }
}

/// The last [`STDERR_TAIL_BYTES`] of a stream.
#[derive(Default, Debug)]
pub struct Tail {
    /// The end of the stream, at most twice as much as is given out, so that most bytes are moved once.
    recent: Vec<u8>,
}

impl Tail {
    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(WINDOW_BYTES)..];
        if self.recent.len() + bytes.len() > 2 * WINDOW_BYTES {
            let stale = (self.recent.len() + bytes.len() - WINDOW_BYTES).min(self.recent.len());
            self.recent.drain(..stale);
        }
        self.recent.extend_from_slice(bytes);
    }

    /// The tail as text. When something was left out, it starts at the start of a line if there is one.
    pub fn text(&self) -> String {
        let window = &self.recent[self.recent.len().saturating_sub(WINDOW_BYTES)..];
        let is_continuation = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
        let start = match window.iter().position(|byte| *byte == b'\n') {
            _ if window.len() < WINDOW_BYTES => 0,
            Some(newline) if newline + 1 < window.len() => newline + 1,
            _ => 1 + window[1..].iter().take(3).take_while(|byte| is_continuation(byte)).count(),
        };
        String::from_utf8_lossy(&window[start..]).into_owned()
    }
}

/// One byte more than is given out shows whether something was left out, and whether a line starts behind it.
const WINDOW_BYTES: usize = STDERR_TAIL_BYTES + 1;

/// Appends `[name] line` and a newline to `out`, escaped as [`escaped`] does, so that a process can't drive the
/// terminal that shows its output. A piece that is continued ends in ` […]`.
pub fn prefixed(name: &str, line: Line<'_>, out: &mut Vec<u8>) {
    out.push(b'[');
    escaped(name.as_bytes(), out);
    out.extend_from_slice(b"] ");
    escaped(line.bytes, out);
    if line.continues {
        out.extend_from_slice(" […]".as_bytes());
    }
    out.push(b'\n');
}

/// Appends `text` to `out`, with control characters other than tabs, and bytes that are not UTF-8, as `\x1b`.
pub fn escaped(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        // Besides the 33 old ones there are 32 control characters of two bytes, which terminals obey as well.
        for part in chunk.valid().split_inclusive(is_escaped) {
            let plain = part.trim_end_matches(is_escaped);
            out.extend_from_slice(plain.as_bytes());
            hexadecimal(&part.as_bytes()[plain.len()..], out);
        }
        hexadecimal(chunk.invalid(), out);
    }
}

fn is_escaped(character: char) -> bool {
    character.is_control() && character != '\t'
}

fn hexadecimal(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        let digit = |value: u8| b"0123456789abcdef"[value as usize];
        out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of a stream that arrives in these portions.
    fn lines<'a>(portions: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, bool)> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for portion in portions {
            lines.feed(portion, |line| found.push((line.bytes.to_vec(), line.continues)));
            assert!(lines.partial.capacity() <= 2 * OUTPUT_LINE_BYTES_MAX);
        }
        lines.finish(|line| found.push((line.bytes.to_vec(), line.continues)));
        found
    }

    /// What the lines were cut from, with a newline at its end.
    fn joined(lines: &[(Vec<u8>, bool)]) -> Vec<u8> {
        lines
            .iter()
            .flat_map(|(line, continues)| [&line[..], if *continues { b"" } else { b"\n" }].concat())
            .collect()
    }

    /// The stream in portions of these sizes, over and over.
    fn portions<'a>(mut stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
        let portion = |size: &usize| stream.split_off(..stream.len().min(*size)).filter(|it| !it.is_empty());
        sizes.iter().cycle().map_while(portion).collect()
    }

    fn shown(name: &str, bytes: &[u8], continues: bool) -> String {
        let mut out = Vec::new();
        prefixed(name, Line { bytes, continues }, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn tail(portions: &[&[u8]]) -> Tail {
        let mut tail = Tail::default();
        portions.iter().for_each(|portion| tail.feed(portion));
        tail
    }

    #[test]
    fn lines_end_at_newlines_and_at_the_end() {
        let whole = |text: &str| (text.as_bytes().to_vec(), false);
        assert_eq!(
            lines([&b"one\n\ntw"[..], b"o\nrest"]),
            [whole("one"), whole(""), whole("two"), whole("rest")]
        );
        assert_eq!(lines([&b"one\n"[..]]), [whole("one")]);
        assert_eq!(lines([]), []);
    }

    #[test]
    fn only_a_line_that_is_too_long_is_cut() {
        let longest = "x".repeat(OUTPUT_LINE_BYTES_MAX);
        let line = |text: &str| text.as_bytes().to_vec();
        assert_eq!(lines([format!("{longest}\n").as_bytes()]), [(line(&longest), false)]);
        let found = lines([format!("{longest}yz\n").as_bytes()]);
        assert_eq!(found, [(line(&longest), true), (line("yz"), false)]);
    }

    #[test]
    fn a_cut_tears_no_character() {
        for (character, before) in [("é", 1), ("…", 1), ("…", 2), ("🜁", 1), ("🜁", 2), ("🜁", 3)]
        {
            let start = "x".repeat(OUTPUT_LINE_BYTES_MAX - before);
            let found = lines([format!("{start}{character}\n").as_bytes()]);
            assert_eq!(found, [(start.into_bytes(), true), (character.as_bytes().to_vec(), false)]);
        }
    }

    #[test]
    fn a_process_cannot_drive_the_terminal() {
        assert_eq!(shown("cell", "tab\tand é".as_bytes(), false), "[cell] tab\tand é\n");
        assert_eq!(shown("a\nb", b"\x1b[2J\r\x7f", true), "[a\\x0ab] \\x1b[2J\\x0d\\x7f […]\n");
        assert_eq!(shown("", b"\xc2\x9b1m \xff\xe2\x82", false), "[] \\xc2\\x9b1m \\xff\\xe2\\x82\n");
    }

    #[test]
    fn a_short_stream_is_all_tail() {
        assert_eq!(tail(&[b"one\n", b"tw\xffo"]).text(), "one\ntw\u{fffd}o");
        let exact = "x".repeat(STDERR_TAIL_BYTES);
        assert_eq!(tail(&[exact.as_bytes()]).text(), exact);
    }

    #[test]
    fn a_tail_starts_at_a_line_when_it_can() {
        let many = "a line\n".repeat(STDERR_TAIL_BYTES);
        let text = tail(&[many.as_bytes(), b"last\n"]).text();
        assert!(text.starts_with("a line\n") && text.ends_with("a line\nlast\n"));
        assert!(text.len() > STDERR_TAIL_BYTES - 7);

        let line = format!("{}\n", "x".repeat(STDERR_TAIL_BYTES - 1));
        assert_eq!(tail(&[b"before\n", line.as_bytes()]).text(), line, "a line that fits exactly");
        let long = "…".repeat(STDERR_TAIL_BYTES);
        let text = tail(&[long.as_bytes(), b"\n"]).text();
        assert_eq!(text, format!("{}\n", "…".repeat((STDERR_TAIL_BYTES - 1) / 3)));
    }

    proptest! {
        #[test]
        fn any_portions_give_the_same_lines_and_the_same_tail(
            runs in prop::collection::vec((0usize..90_000, any::<u8>(), any::<[u8; 3]>(), any::<bool>()), 0..6),
            sizes in prop::collection::vec(1usize..50_000, 1..8),
        ) {
            let run = |(count, byte, other, ends): (usize, u8, [u8; 3], bool)| {
                [&vec![byte; count][..], &other, if ends { b"\n" } else { b"" }].concat()
            };
            let stream: Vec<u8> = runs.into_iter().flat_map(run).collect();
            let portions = portions(&stream, &sizes);
            let whole = lines([&stream[..]]);
            prop_assert!(lines(portions.iter().copied()) == whole);
            prop_assert!(whole.iter().all(|(line, _)| line.len() <= OUTPUT_LINE_BYTES_MAX));
            prop_assert!(joined(&whole) == stream || joined(&whole).strip_suffix(b"\n") == Some(&stream[..]));
            let in_portions = tail(&portions);
            prop_assert!(in_portions.recent.capacity() <= 4 * WINDOW_BYTES);
            prop_assert_eq!(in_portions.text(), tail(&[&stream]).text());
        }

        #[test]
        fn no_character_is_torn(texts in prop::collection::vec((0usize..20_000, "[a-z…🜁\n]{0,4}"), 1..6)) {
            let text: String = texts.iter().map(|(count, other)| "🜁é".repeat(*count) + other).collect();
            prop_assert!(lines([text.as_bytes()]).iter().all(|(line, _)| str::from_utf8(line).is_ok()));
            prop_assert!(text.ends_with(&tail(&[text.as_bytes()]).text()));
        }

        #[test]
        fn nothing_shown_is_a_control_character(name in "\\PC*|[\\x00-\\xff]{0,9}", bytes: Vec<u8>) {
            let text = shown(&name, &bytes, false);
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(!line.contains(|character: char| character.is_control() && character != '\t'));
        }
    }
}
