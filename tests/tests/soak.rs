//! One of two processes that talk is killed, again and again: `tests/src/bin/soak.rs`, for so many rounds.

use tests::run;

#[test]
fn the_survivor_gets_a_prefix_and_then_the_death() {
    let output = run(env!("CARGO_BIN_EXE_soak"), &["--rounds", "40", "--seed", "5"]).output().unwrap();
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert!(told.contains("40 rounds"), "{told}");
}
