fn double(number: u32) -> u32 {
    number * 2
}

fn main() {
    let pointer: fn(u32) -> u32 = double;
    let _ = archean::spawn(pointer, 1u32);
}
