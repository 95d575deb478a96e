fn main() {
    let captured = 7u32;
    let _ = archean::spawn(move |a: u32| a + captured, 1u32);
}
