struct Plain {
    _number: u32,
}

fn take(_: Plain) {}

fn main() {
    let _ = archean::channel::<Plain>();
    let _ = archean::spawn(take, Plain { _number: 1 });
}
