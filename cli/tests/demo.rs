//! `archean demo`, as a shell sees it.

use std::{
    fs,
    io::{self, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
};

use serde_json::Value;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_archean"));
    command.arg("demo").args(arguments).stdin(Stdio::null());
    command
}

/// The exit code, and what was written to standard output and standard error.
fn shown(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = status.code().unwrap_or_else(|| panic!("ended by signal {:?}", status.signal()));
    (code, text(stdout), text(stderr))
}

/// What a successful demo says in JSON.
fn result(arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = shown(demo(arguments).arg("--json"));
    assert_eq!((code, &stderr[..]), (0, ""), "{arguments:?}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

/// Runs a demo in `folder`, and expects that it fails with that code and a word on standard error.
fn failure(folder: &Path, arguments: &[&str], code: i32) -> String {
    let (found, stdout, stderr) = shown(demo(arguments).current_dir(folder));
    assert_eq!((found, &stdout[..]), (code, ""), "{arguments:?}: {stderr}");
    stderr
}

#[test]
fn the_result_is_one_line_of_json() {
    let result = result(&["--pattern", "glider", "--size", "70x30", "--generations", "120"]);
    let keys: Vec<&String> = result.as_object().unwrap().keys().collect();
    let expected = [
        "board_hash",
        "generations",
        "generations_per_s",
        "population",
        "processes",
        "tick_p50_us",
        "tick_p99_us",
    ];
    assert_eq!(keys, expected);
    assert_eq!((&result["population"], &result["generations"]), (&5.into(), &120.into()));
    let hash = result["board_hash"].as_str().unwrap();
    assert!(hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    let number = |key: &str| result[key].as_f64().unwrap();
    assert!(number("generations_per_s") > 0.0);
    assert!(0.0 < number("tick_p50_us") && number("tick_p50_us") <= number("tick_p99_us"), "{result}");
}

#[test]
fn any_number_of_processes_plays_the_same_game() {
    for arguments in [
        &["--pattern", "r-pentomino", "--size", "200", "--generations", "150"][..],
        &["--pattern", "soup", "--seed", "7", "--size", "130x64", "--generations", "40"],
        &["--pattern", "soup", "--size", "65x7", "--generations", "9"],
    ] {
        let results = ["1", "2", "3", "7"].map(|processes| {
            let result = result(&[arguments, &["--processes", processes]].concat());
            assert_eq!(result["processes"].to_string(), processes);
            (result["population"].clone(), result["board_hash"].clone())
        });
        assert!(results.iter().all(|result| *result == results[0]), "{arguments:?}: {results:?}");
        assert!(results[0].0.as_u64().unwrap() > 0);
    }
}

#[test]
fn the_r_pentomino_settles_into_116_cells() {
    let result = result(&["--size", "512"]);
    assert_eq!((&result["population"], &result["generations"]), (&116.into(), &1103.into()));
}

#[test]
fn seeds_make_different_soups() {
    let hash = |seed| {
        result(&["--pattern", "soup", "--size", "64", "--generations", "0", "--seed", seed])["board_hash"]
            .clone()
    };
    assert_eq!(hash("1"), hash("1"));
    assert_ne!(hash("1"), hash("2"));
}

#[test]
fn a_pattern_may_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blinker.rle");
    fs::write(&file, "#C \u{e9}\nx = 3, y = 1\n3o!\n").unwrap();
    let result = result(&["--pattern", file.to_str().unwrap(), "--size", "64"]);
    assert_eq!((&result["population"], &result["generations"]), (&3.into(), &1000.into()));
}

#[test]
fn the_picture_is_shown_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--pattern", "glider", "--size", "96x80", "--generations", "0", "--out", "glider.png"];
    let (code, stdout, stderr) = shown(demo(&arguments).current_dir(&folder));
    assert_eq!((code, &stderr[..]), (0, ""), "no bar where there is no terminal");
    assert!(stdout.contains("⠠⡀"), "{stdout}");
    for word in ["population   5", "generations  0", "processes", "96x80", "p50", "p99", "hash"] {
        assert!(stdout.contains(word), "{word}: {stdout}");
    }
    let file = fs::File::open(folder.path().join("glider.png")).unwrap();
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((frame.width, frame.height), (96, 80));
    assert_eq!(pixels.iter().filter(|pixel| **pixel == 255).count(), 5);
}

#[test]
fn a_command_line_without_sense_is_code_2() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["--pattern", "gilder"][..], &["`gilder`", "r-pentomino, acorn, gosper-gun, glider, soup"][..]),
        (&["--pattern", "gosper-gun", "--size", "30"], &["36x9", "30x30", "--size"]),
        (&["--size", "axb"], &["`a`", "axb"]),
        (&["--size", "2"], &["`2`", "out of range"]),
        (&["--generations", "-1"], &["-1"]),
        (&["--generations", "many"], &["many", "--generations"]),
        (&["--processes", "0"], &["0", "1..=512", "--processes"]),
        (&["--processes", "513"], &["513", "1..=512"]),
        (&["--processes", "8", "--size", "64x7"], &["8 processes", "7 rows", "--processes"]),
        (&["--seed", "3"], &["--seed", "soup"]),
        (&["--pattern", "soup", "--seed", "x"], &["--seed"]),
        (&["surplus"], &["surplus"]),
    ] {
        let text = failure(folder.path(), arguments, 2);
        assert!(words.iter().all(|word| text.contains(word)), "{arguments:?}: {text}");
    }
}

#[test]
fn a_bad_file_is_code_1() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.rle"), "x = 3, y = 3\nbob$?o!\n").unwrap();
    fs::write(folder.path().join("empty.rle"), "").unwrap();
    fs::write(folder.path().join("binary.rle"), [0xff; 100]).unwrap();
    for (arguments, words) in [
        (["--pattern", "bad.rle"], &["bad.rle", "line 2, column 5", "'?'"][..]),
        (["--pattern", "empty.rle"], &["empty.rle", "empty"]),
        (["--pattern", "binary.rle"], &["binary.rle", "line 1, column 1"]),
        (["--pattern", "."], &["no plain file"]),
        (["--pattern", "/dev/zero"], &["/dev/zero", "no plain file"]),
        (["--out", "missing/life.png"], &["missing/life.png", "No such file"]),
        (["--out", "."], &["picture .", "Is a directory"]),
    ] {
        let text = failure(folder.path(), &arguments, 1);
        assert!(text.starts_with("archean: ") && text.lines().count() == 1, "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{arguments:?}: {text}");
    }
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_picture_that_finds_no_room_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        failure(folder.path(), &["--size", "64", "--json", "--generations", "1", "--out", "/dev/full"], 1);
    assert!(text.contains("/dev/full") && text.contains("No space left"), "{text}");
}

/// A demo with no end that anybody would wait for.
struct Running {
    demo: Child,
    /// The root, then the strips.
    processes: Vec<u32>,
}

impl Running {
    fn start() -> Running {
        let arguments = ["--size", "256", "--generations", "4000000000", "--processes", "3", "--json"];
        let demo = demo(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Running { demo, processes: Vec::new() };
        while running.processes.len() < 4 {
            assert!(running.demo.try_wait().unwrap().is_none(), "the demo has ended");
            // The demo watches over a launcher, whose children are the job's processes.
            let launcher = children(running.demo.id());
            running.processes = launcher.first().map(|launcher| children(*launcher)).unwrap_or_default();
            thread::yield_now();
        }
        running
    }

    fn signal(&self, process: u32, signal: &str) {
        let killed = Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for the end, and gives the exit code and what was written to standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.demo.wait().unwrap();
        let stdout = io::read_to_string(self.demo.stdout.take().unwrap()).unwrap();
        let stderr = io::read_to_string(self.demo.stderr.take().unwrap()).unwrap();
        assert_eq!(stdout, "");
        let left = self.processes.iter().filter(|process| Path::new(&format!("/proc/{process}")).exists());
        assert_eq!(left.count(), 0, "processes of the job are left");
        (status.code(), stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What belongs to the demo ends with it. It has ended already unless the test failed.
        let _ = self.demo.kill();
        let _ = self.demo.wait();
    }
}

#[test]
fn a_strip_that_dies_is_named() {
    let running = Running::start();
    running.signal(running.processes[2], "KILL");
    let (code, text) = running.end();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("process strip 1 ") && text.contains("SIGKILL"), "{text}");
}

#[test]
fn an_interrupt_ends_the_game() {
    let running = Running::start();
    running.signal(running.demo.id(), "INT");
    assert_eq!(running.end(), (Some(130), String::new()));
}

/// The children of a process, in the order of their start.
fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let ids = |list: String| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>();
    let mut children: Vec<u32> = lists.flat_map(ids).collect();
    children.sort_unstable();
    children
}
