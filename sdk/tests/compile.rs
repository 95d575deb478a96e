//! What compiles, and what people are told about what does not.

#[test]
fn programs_that_compile_and_programs_that_do_not() {
    let tests = trybuild::TestCases::new();
    tests.pass("tests/compile/pass_*.rs");
    tests.compile_fail("tests/compile/fail_*.rs");
}
