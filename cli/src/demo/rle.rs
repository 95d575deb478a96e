//! The text format in which the Life community exchanges patterns: run-length encoded rows.

use std::{fmt, iter::Peekable, str::Chars, str::FromStr};

/// The most live cells that a pattern may have.
pub(crate) const CELLS_MAX: usize = 16 << 20;

/// Live cells in a box.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pattern {
    /// Columns of the box.
    pub(crate) width: u32,
    /// Rows of the box.
    pub(crate) height: u32,
    /// Column and row of each live cell, row by row from the top left.
    pub(crate) cells: Vec<(u32, u32)>,
}

/// A place in a text, both counted from one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The line.
    pub(crate) line: usize,
    /// The character in the line.
    pub(crate) column: usize,
}

/// A text that is not a pattern of Life.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RleError {
    /// There is nothing but comments and space.
    #[error("the pattern is empty; expected {HEADER}")]
    Empty,
    /// Something else than the format has in this place.
    #[error("{at}: found {found}, expected {expected}")]
    Unexpected {
        /// Where.
        at: Place,
        /// What is there.
        found: String,
        /// What could be there.
        expected: &'static str,
    },
    /// A number that is larger than any board.
    #[error("{at}: the number is larger than {}, the most that can be counted", u32::MAX)]
    NumberTooLarge {
        /// Where it starts.
        at: Place,
    },
    /// A live cell outside of the box that the header gives.
    #[error(
        "{at}: a live cell in column {x}, row {y} (from 0) is outside of the header's {width} x {height} box; correct `x` and `y` in the header"
    )]
    Outside {
        /// Where the run of cells is in the text.
        at: Place,
        /// The column of the run's last cell.
        x: u64,
        /// The row.
        y: u32,
        /// Columns of the box.
        width: u32,
        /// Rows of the box.
        height: u32,
    },
    /// A rule that this program does not play.
    #[error("{at}: the rule is `{rule}`, and only Life is played here: `B3/S23`, also written `23/3`")]
    Rule {
        /// Where.
        at: Place,
        /// The rule as it was written.
        rule: String,
    },
    /// More live cells than [`CELLS_MAX`].
    #[error("{at}: the pattern has more than {CELLS_MAX} live cells; take a smaller one")]
    TooManyCells {
        /// Where the run of cells is that is too much.
        at: Place,
    },
}

const HEADER: &str = "a header such as `x = 3, y = 3, rule = B3/S23`";
const BODY: &str = "a run count, `b`, `o`, `$` or `!`";
const BODY_AFTER_COUNT: &str = "`b`, `o` or `$` after a run count";

/// As much of a foreign rule as an error shows.
const RULE_CHARS_MAX: usize = 40;

impl FromStr for Pattern {
    type Err = RleError;

    /// Takes time and memory by the cells that lie in the header's box, whatever the numbers in the text are.
    fn from_str(text: &str) -> Result<Self, RleError> {
        let mut reader = Reader::new(text);
        reader.skip_space_and_comments();
        if reader.peek().is_none() {
            return Err(RleError::Empty);
        }
        let (width, height) = reader.header()?;
        let mut pattern = Pattern { width, height, cells: Vec::new() };
        let (mut x, mut y) = (0u32, 0u32);
        loop {
            reader.skip_space_and_comments();
            let at = reader.place;
            let count = reader.run_count()?;
            match reader.peek() {
                Some('b' | '.') => x = x.saturating_add(count.unwrap_or(1)),
                Some('o' | 'A') => x = pattern.push_run(x, y, count.unwrap_or(1), at)?,
                Some('$') => (x, y) = (0, y.saturating_add(count.unwrap_or(1))),
                Some('!') if count.is_none() => return Ok(pattern),
                _ if count.is_some() => return Err(reader.unexpected(BODY_AFTER_COUNT)),
                _ => return Err(reader.unexpected(BODY)),
            }
            reader.next();
        }
    }
}

impl Pattern {
    /// Adds `count` live cells from (`x`, `y`) on, and returns the column behind them.
    fn push_run(&mut self, x: u32, y: u32, count: u32, at: Place) -> Result<u32, RleError> {
        let (width, height) = (self.width, self.height);
        let end = u64::from(x) + u64::from(count);
        if end > u64::from(width) || y >= height {
            return Err(RleError::Outside { at, x: end - 1, y, width, height });
        }
        if count as usize > CELLS_MAX - self.cells.len() {
            return Err(RleError::TooManyCells { at });
        }
        self.cells.extend((x..x + count).map(|x| (x, y)));
        Ok(x + count)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The text's characters, and the place of the next one.
struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    place: Place,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Reader { chars: text.chars().peekable(), place: Place { line: 1, column: 1 } }
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.chars.next()?;
        match next {
            '\n' => self.place = Place { line: self.place.line + 1, column: 1 },
            _ => self.place.column += 1,
        }
        Some(next)
    }

    fn skip_while(&mut self, skipped: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&skipped) {
            self.next();
        }
    }

    /// A comment is a line that starts with `#`.
    fn skip_space_and_comments(&mut self) {
        loop {
            self.skip_while(char::is_whitespace);
            if self.peek() != Some('#') || self.place.column != 1 {
                return;
            }
            self.skip_while(|c| c != '\n');
        }
    }

    fn skip_space_in_line(&mut self) {
        self.skip_while(|c| c != '\n' && c.is_whitespace());
    }

    /// Reads the header's line and returns `x` and `y`.
    fn header(&mut self) -> Result<(u32, u32), RleError> {
        let width = self.dimension('x', HEADER)?;
        self.expect(',', "`,` and then `y`")?;
        let height = self.dimension('y', "`y = `, the number of rows")?;
        if self.peek() == Some(',') {
            self.next();
            self.rule()?;
        }
        match self.peek() {
            None | Some('\n') => Ok((width, height)),
            Some(_) => Err(self.unexpected("the end of the header's line, or `, rule = B3/S23`")),
        }
    }

    /// Reads `x = 3` and the space behind it.
    fn dimension(&mut self, name: char, expected: &'static str) -> Result<u32, RleError> {
        self.expect(name, expected)?;
        self.expect('=', "`=` and then a number")?;
        let number = self.number()?.ok_or_else(|| self.unexpected("a number"))?;
        self.skip_space_in_line();
        Ok(number)
    }

    /// Reads `rule = …` to the line's end.
    fn rule(&mut self) -> Result<(), RleError> {
        self.skip_space_in_line();
        for letter in "rule".chars() {
            match self.peek() {
                Some(found) if found == letter => self.next(),
                _ => return Err(self.unexpected("`rule = B3/S23`")),
            };
        }
        self.expect('=', "`=` and then `B3/S23`")?;
        let at = self.place;
        let mut rule = String::new();
        while let Some(next) = self.peek().filter(|next| *next != '\n') {
            if rule.chars().count() < RULE_CHARS_MAX {
                rule.push(next);
            }
            self.next();
        }
        match rule.trim_end() {
            life if life.eq_ignore_ascii_case("B3/S23") || life == "23/3" => Ok(()),
            other => Err(RleError::Rule { at, rule: other.to_owned() }),
        }
    }

    /// Reads one character with the space around it.
    fn expect(&mut self, wanted: char, expected: &'static str) -> Result<(), RleError> {
        self.skip_space_in_line();
        if self.peek() != Some(wanted) {
            return Err(self.unexpected(expected));
        }
        self.next();
        self.skip_space_in_line();
        Ok(())
    }

    /// Reads the count in front of a run, if there is one, and the space behind it.
    fn run_count(&mut self) -> Result<Option<u32>, RleError> {
        if self.peek() == Some('0') {
            return Err(self.unexpected("a run count of one or more"));
        }
        let count = self.number()?;
        self.skip_while(char::is_whitespace);
        Ok(count)
    }

    fn number(&mut self) -> Result<Option<u32>, RleError> {
        let at = self.place;
        let mut number = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            let shifted = number.unwrap_or(0u32).checked_mul(10).and_then(|tens| tens.checked_add(digit));
            number = Some(shifted.ok_or(RleError::NumberTooLarge { at })?);
            self.next();
        }
        Ok(number)
    }

    fn unexpected(&mut self, expected: &'static str) -> RleError {
        let found = match self.peek() {
            Some('\n') => "the end of the line".to_owned(),
            Some(c) => format!("{c:?}"),
            None => "the end of the text".to_owned(),
        };
        RleError::Unexpected { at: self.place, found, expected }
    }
}

#[cfg(test)]
mod tests;
