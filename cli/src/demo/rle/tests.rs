use proptest::prelude::*;

use super::*;

const GLIDER: [(u32, u32); 5] = [(1, 0), (2, 1), (0, 2), (1, 2), (2, 2)];

fn parse(text: &str) -> Result<Pattern, RleError> {
    text.parse()
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn a_glider_in_all_its_spellings() {
    for text in [
        "x = 3, y = 3, rule = B3/S23\nbob$2bo$3o!\n",
        "#N Glider\n#C seen in 1969\n\nx=3,y=3\nbo$2bo$3o!anything may follow 0q",
        "x = 3, y = 3, rule = 23/3\r\nb o b\r\n$ 2\nb o $ 3 o\n!",
        "x = 3 , y = 3 , rule = b3/s23  \n# between\n.A.$..A$AAA$$!",
        "x = 3, y = 3\n1b1o9b$2bo$3o9$!",
    ] {
        let glider = Pattern { width: 3, height: 3, cells: GLIDER.to_vec() };
        assert_eq!(parse(text), Ok(glider), "{text:?}");
    }
}

#[test]
fn a_pattern_may_have_no_cells() {
    assert_eq!(parse("x = 0, y = 0\n!"), Ok(Pattern { width: 0, height: 0, cells: vec![] }));
}

#[test]
fn errors_say_where_and_what() {
    assert_eq!(message(" \n#C nothing\n"), format!("the pattern is empty; expected {HEADER}"));
    assert_eq!(message("#C\nbob$!"), format!("line 2, column 1: found 'b', expected {HEADER}"));
    assert_eq!(message("x = 3\n"), "line 1, column 6: found the end of the line, expected `,` and then `y`");
    assert_eq!(message("x = 3, y = -1\n!"), "line 1, column 12: found '-', expected a number");
    assert_eq!(
        message("x = 3, y = 1, size = 2\n!"),
        "line 1, column 15: found 's', expected `rule = B3/S23`"
    );
    assert_eq!(
        message("x = 3, y = 4294967296\n!"),
        "line 1, column 12: the number is larger than 4294967295, the most that can be counted"
    );
    assert_eq!(message("x = 3, y = 1\nbo\n bx!"), format!("line 3, column 3: found 'x', expected {BODY}"));
    assert_eq!(
        message("x = 3, y = 1\n3!"),
        format!("line 2, column 2: found '!', expected {BODY_AFTER_COUNT}")
    );
    assert_eq!(
        message("x = 3, y = 1\n0o!"),
        "line 2, column 1: found '0', expected a run count of one or more"
    );
    assert_eq!(
        message("x = 3, y = 1\nbo"),
        format!("line 2, column 3: found the end of the text, expected {BODY}")
    );
    assert_eq!(
        message("x = 3, y = 1, rule = B36/S23\nbo!"),
        "line 1, column 22: the rule is `B36/S23`, and only Life is played here: `B3/S23`, also written `23/3`"
    );
}

#[test]
fn cells_stay_in_the_box() {
    let outside = "is outside of the header's 3 x 1 box; correct `x` and `y` in the header";
    assert_eq!(
        message("x = 3, y = 1\n2b\n2o!"),
        format!("line 3, column 1: a live cell in column 3, row 0 (from 0) {outside}")
    );
    assert_eq!(
        message("x = 3, y = 1\n$o!"),
        format!("line 2, column 2: a live cell in column 0, row 1 (from 0) {outside}")
    );
}

#[test]
fn numbers_in_the_text_cost_nothing() {
    let at = Place { line: 2, column: 1 };
    let huge = "x = 4294967295, y = 4294967295\n";
    assert_eq!(parse(&format!("{huge}99999999999o!")), Err(RleError::NumberTooLarge { at }));
    assert_eq!(parse(&format!("{huge}4294967295o!")), Err(RleError::TooManyCells { at }));
    assert_eq!(parse(&format!("{huge}4294967295b4294967295$4294967295b!")).unwrap().cells, []);
    let far = parse(&format!("{huge}4294967294$4294967294bo!")).unwrap();
    assert_eq!(far.cells, [(u32::MAX - 1, u32::MAX - 1)]);
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_header_panics(text in "x ?= ?[0-9]{1,12} ?,? ?y ?=? ?[0-9]{0,12},? ?(rule)?=?[bBsS0-9/]{0,8}\n[bo$!]{0,9}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_body_panics(width in 0u32..99, body in "([0-9]{0,11}[bo.A$!\n ]|[#!q]){0,60}") {
        if let Ok(pattern) = parse(&format!("x = {width}, y = 9\n{body}")) {
            prop_assert!(pattern.cells.iter().all(|&(x, y)| x < width && y < 9));
            prop_assert!(pattern.cells.is_sorted_by_key(|&(x, y)| (y, x)));
        }
    }

    #[test]
    fn what_was_written_is_read(rows in prop::collection::vec("[bo]{7}", 1..9)) {
        let text = format!("x = 7, y = {}\n{}!", rows.len(), rows.join("$\n"));
        let alive = |(y, row): (usize, &String)| -> Vec<(u32, u32)> {
            row.char_indices().filter(|(_, c)| *c == 'o').map(|(x, _)| (x as u32, y as u32)).collect()
        };
        let cells: Vec<_> = rows.iter().enumerate().flat_map(alive).collect();
        prop_assert_eq!(parse(&text).unwrap().cells, cells);
    }
}
