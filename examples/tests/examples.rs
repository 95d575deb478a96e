//! The examples, as somebody sees them who runs them with `archean run`.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A file that Cargo has built: tests are in the folder `deps` beside it.
fn built(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let file = test.ancestors().nth(2).unwrap().join(name);
    assert!(file.is_file(), "{} is missing: run cargo build first", file.display());
    file
}

/// What a program has printed, and its exit code.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(command: &mut Command) -> Run {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        let signal = output.status.signal();
        let code = output.status.code().unwrap_or_else(|| panic!("signal {signal:?}: {stdout}{stderr}"));
        Run { code, stdout, stderr }
    }

    fn example<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Run {
        let program = built(&format!("examples/{name}"));
        Run::of(Command::new(built("archean")).arg("run").arg(program).args(arguments))
    }

    /// The lines of the root, and how many there are of others.
    fn success(&self) -> (Vec<&str>, usize) {
        assert_eq!((self.code, &self.stderr[..]), (0, ""), "{}", self.stdout);
        let (others, root): (Vec<_>, Vec<_>) = self.stdout.lines().partition(|line| line.starts_with('['));
        (root, others.len())
    }

    /// The one line about what is wrong.
    fn failure(&self, code: i32) -> &str {
        assert_eq!((self.code, &self.stdout[..]), (code, ""), "{}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        &self.stderr
    }
}

const NONE: [&str; 0] = [];

const HELLO: [&str; 4] =
    ["1 + … + 10 = 55", "1 + … + 20 = 210", "1 + … + 30 = 465", "the child answered 3 questions"];

#[test]
fn hello_asks_and_is_answered() {
    assert_eq!(Run::example("hello", NONE).success(), (HELLO.to_vec(), 3));
}

#[test]
fn a_program_that_is_started_by_hand_finds_archean() {
    let run = Run::of(Command::new(built("examples/hello")).env("ARCHEAN", built("archean")));
    assert_eq!(run.success(), (HELLO.to_vec(), 3));
}

#[test]
fn the_pipeline_finds_the_primes() {
    let run = Run::example("pipeline", NONE);
    let (lines, _) = run.success();
    let mut left: Vec<u32> = (2..529).collect();
    for (line, (stage, prime)) in lines.iter().zip((1..).zip([2, 3, 5, 7, 11, 13, 17, 19])) {
        let before = left.len();
        left.retain(|number| *number == prime || number % prime != 0);
        let dropped = before - left.len();
        assert_eq!(*line, format!("stage-{stage} dropped {dropped} multiples of {prime}"));
    }
    assert_eq!(lines[8..], [format!("the primes below 529: {left:?}")]);
}

#[test]
fn the_quadtree_grows_and_shrinks_and_loses_nobody() {
    let run = Run::example("quadtree", NONE);
    let (lines, _) = run.success();
    let (last, ticks) = lines.split_last().unwrap();
    assert_eq!(*last, "all 400 entities are where a world without cells has them");
    assert_eq!(ticks.len(), 10);
    let cells = |line: &&str| -> u32 {
        let cells = line.split_once(": 400 entities in ").and_then(|(_, rest)| rest.strip_suffix(" cells"));
        cells.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let cells: Vec<u32> = ticks.iter().map(cells).collect();
    assert!(cells.iter().all(|cells| cells % 4 == 1), "quarters come in fours: {cells:?}");
    assert!(cells.windows(2).any(|pair| pair[0] < pair[1]), "no cell has split: {cells:?}");
    assert!(cells.windows(2).any(|pair| pair[0] > pair[1]), "no cell has merged: {cells:?}");
}

#[test]
fn the_directory_brings_services_and_clients_together() {
    let run = Run::example("directory", NONE);
    let clients =
        (0..3).map(|number| format!("{number}, double is {}, triple is {}", 2 * number, 3 * number));
    let services = ["double", "triple"].map(|name| format!("{name} has served 3 clients"));
    let last = ["the directory has answered 6 questions".to_owned()];
    let expected: Vec<String> = clients.chain(services).chain(last).collect();
    assert_eq!(run.success(), (expected.iter().map(String::as_str).collect(), 0));
}

/// The bits that are set after `tick` ticks are the odd ones among the binomial coefficients of `tick`: those in which
/// the number above and the number below have no binary digit in common.
#[test]
fn the_ticks_draw_a_triangle() {
    let run = Run::example("ticks", NONE);
    let (lines, others) = run.success();
    let is_odd = |tick: usize, above: usize| above <= tick && above & (tick - above) == 0;
    let bit = |tick: usize, place: usize| {
        let twice = place + tick;
        if twice >= 32 && twice.is_multiple_of(2) && is_odd(tick, (twice - 32) / 2) { '#' } else { '.' }
    };
    let line = |tick: usize| (0..64).map(|place| bit(tick, place)).collect::<String>();
    assert_eq!(lines, (0..32).map(line).collect::<Vec<_>>());
    assert_eq!(others, 0);
}

/// Fills a folder with five files, and gives how often each word is in them.
fn fill(folder: &Path) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for file in 0..5 {
        let mut text = String::new();
        for word in 0..40 {
            let times = (word * 7 + file) % 13;
            *counts.entry(format!("wörd{word}")).or_default() += times;
            (0..times)
                .for_each(|time| text += &format!("Wörd{word}{}", [" ", ", ", ".\n\t- "][time as usize % 3]));
        }
        fs::write(folder.join(format!("{file}.txt")), text).unwrap();
    }
    fs::create_dir(folder.join("no file")).unwrap();
    counts
}

#[test]
fn words_are_counted_right_by_any_number_of_processes() {
    let folder = tempfile::tempdir().unwrap();
    let counts = fill(folder.path());
    let total: u64 = counts.values().sum();
    let mut top: Vec<_> = counts.into_iter().collect();
    // A stable sort: words that are equally frequent stay in alphabetical order.
    top.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let top: Vec<String> = top.iter().take(10).map(|(word, count)| format!("{count:>8}  {word}")).collect();
    for (asked, processes) in [("1", 1), ("2", 2), ("5", 5), ("1000", 5)] {
        let run = Run::example("word_count", [folder.path().as_os_str(), asked.as_ref()]);
        let (lines, others) = run.success();
        assert_eq!(lines[0], format!("{total} words in 5 files, counted by {processes} processes"));
        assert_eq!(lines[1..], top);
        assert_eq!(others, processes);
    }
}

#[test]
fn a_word_count_that_can_not_be_says_why() {
    let usage = "usage: word_count FOLDER [PROCESSES]\n";
    for arguments in [&[][..], &[".", "0"], &[".", "many"], &[".", "1", "2"]] {
        assert_eq!(Run::example("word_count", arguments).failure(2), usage);
    }
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for path in [folder.path(), &missing] {
        let run = Run::example("word_count", [path]);
        let text = run.failure(1);
        assert!(text.contains(path.to_str().unwrap()), "{text}");
    }
}
