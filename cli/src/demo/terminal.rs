//! The terminal of the user, of which the demo's root sees nothing: its streams are pipes.
#![expect(unsafe_code, reason = "a terminal's size is asked for by a system call")]

use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal, Write},
    mem,
    os::fd::{AsFd, AsRawFd},
    sync::{Mutex, PoisonError},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

/// What the root is told of the terminal.
#[derive(clap::Args, Debug, Clone, Copy)]
pub(crate) struct Terminal {
    #[arg(long = "terminal-columns", hide = true, default_value_t = 80)]
    columns: u16,
    #[arg(long = "terminal-lines", hide = true, default_value_t = 24)]
    lines: u16,
    /// Standard error is a terminal.
    #[arg(long = "terminal-progress", hide = true)]
    is_interactive: bool,
}

/// Looks at this process's terminal, and gives the arguments that tell the root of it.
pub(crate) fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    if let Some(size) = size_of_stream(io::stdout()).or_else(|| size_of_stream(io::stderr())) {
        arguments.push(format!("--terminal-columns={}", size.ws_col).into());
        arguments.push(format!("--terminal-lines={}", size.ws_row).into());
    }
    if io::stderr().is_terminal() && env::var_os("TERM").is_some_and(|term| term != "dumb") {
        arguments.push("--terminal-progress".into());
    }
    arguments
}

fn size_of_stream(stream: impl AsFd) -> Option<libc::winsize> {
    // SAFETY: all zeros is a value of this struct of integers.
    let mut size: libc::winsize = unsafe { mem::zeroed() };
    // SAFETY: the descriptor is borrowed for the call, which writes to a struct that outlives it.
    let asked = unsafe { libc::ioctl(stream.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (asked == 0 && size.ws_col > 0 && size.ws_row > 0).then_some(size)
}

impl Terminal {
    pub(crate) fn columns(&self) -> u32 {
        self.columns.into()
    }

    pub(crate) fn lines(&self) -> u32 {
        self.lines.into()
    }

    /// A bar on standard error, if that is a terminal.
    pub(crate) fn progress_bar(&self, generations: u32) -> Option<ProgressBar> {
        let screen = Screen { columns: self.columns, lines: self.lines, pending: Mutex::default() };
        let target = ProgressDrawTarget::term_like(Box::new(screen));
        let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} generations, {eta} left");
        let style = style.expect("the template is well-formed");
        self.is_interactive
            .then(|| ProgressBar::with_draw_target(Some(generations.into()), target).with_style(style))
    }
}

/// Draws on a terminal that is at the other end of standard error.
#[derive(Debug)]
struct Screen {
    columns: u16,
    lines: u16,
    /// A drawing goes out as a whole.
    pending: Mutex<String>,
}

impl Screen {
    fn push(&self, text: &str) -> io::Result<()> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    /// The sequence that moves the cursor by `n` in a direction.
    fn move_cursor(&self, n: usize, direction: char) -> io::Result<()> {
        if n == 0 { Ok(()) } else { self.push(&format!("\x1b[{n}{direction}")) }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.columns
    }

    fn height(&self) -> u16 {
        self.lines
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.push(text)?;
        self.push("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.push(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.push("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let drawing = mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        io::stderr().write_all(drawing.as_bytes())
    }
}
