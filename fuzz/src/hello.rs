//! Whatever a stranger may say first on a link, and what the two sides of an image's transfer ask and tell each other.
//!
//! The input is a byte that says what the rest is taken for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    hello::{HELLO_BYTES, Hello, HelloError, REPLY_BYTES, Reply, Terms},
    image::{ImageFile, Manifest, Role, Want},
    limits::{IMAGE_BYTES_MAX, IMAGE_FILES_MAX, LINK_WINDOW_BYTES_MAX},
};

fuzz_target!(|input: &[u8]| {
    let Some((what, bytes)) = input.split_first() else { return };
    match what % 3 {
        0 => bytes.first_chunk().into_iter().for_each(check_hello),
        1 => bytes.first_chunk().into_iter().for_each(check_reply),
        _ => check_image(bytes),
    }
});

/// What is accepted says all that was in it, and no more is given than was offered.
fn check_hello(bytes: &[u8; HELLO_BYTES]) {
    let hello = match Hello::decode(bytes) {
        Ok(hello) => hello,
        Err(error) => {
            let is_stranger = matches!(error, HelloError::Garbage | HelloError::Field { .. });
            assert_eq!(error.refusal().is_none(), is_stranger, "a stranger is told something");
            return;
        }
    };
    let (signed, mac) = Hello::signed(bytes);
    assert_eq!(
        hello.encode(|again| (again == signed).then_some(mac).expect("other bytes are signed")),
        *bytes
    );
    assert!(hello.terms.window_bytes <= LINK_WINDOW_BYTES_MAX);
    let half = hello.terms.window_bytes / 2;
    let offered = Terms { window_bytes: half, ..hello.terms };
    assert_eq!(hello.check(&offered).is_ok(), hello.terms.window_bytes == half);
    assert_eq!(hello.check(&hello.terms), Ok(()));
}

fn check_reply(bytes: &[u8; REPLY_BYTES]) {
    let Some(reply) = Reply::decode(bytes) else { return };
    let (signed, mac) = Reply::signed(bytes);
    let again = reply.encode(|_| mac);
    // A reply of another version says just that.
    assert!(Reply::signed(&again).0 == signed || reply.verdict.is_err());
    assert_eq!(reply.nonce, signed[16..]);
}

/// An image has one program and a bounded number of files, whose names lead out of no folder.
fn check_image(bytes: &[u8]) {
    if let Some(want) = Want::decode(bytes) {
        assert_eq!(want.encode(), bytes);
    }
    let Ok(manifest) = Manifest::read(bytes) else { return };
    let count = |role| manifest.files.iter().filter(|file| file.kind() == Some(role)).count();
    assert!(count(Role::Program) == 1 && count(Role::Interpreter) <= 1);
    assert!(manifest.files.len() <= IMAGE_FILES_MAX && manifest.bytes() <= IMAGE_BYTES_MAX);
    let is_safe = |file: &ImageFile| {
        let path = std::path::Path::new(&file.name);
        path.file_name() == Some(path.as_os_str()) && file.digest().is_some()
    };
    assert!(manifest.files.iter().all(is_safe));
}
