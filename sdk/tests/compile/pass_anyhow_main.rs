//! `main` may be async, and return an `anyhow` error that every error of the crate turns into.

#[archean::data]
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Circle { radius: f64 },
    Square(f64),
    Nothing,
}

mod program {
    use super::Shape;

    #[archean::main]
    async fn main() -> anyhow::Result<()> {
        let (mut sender, mut receiver) = archean::channel::<Shape>();
        sender.send(Shape::Circle { radius: 1.0 }).await?;
        sender.send_ref(&Shape::Nothing).await?;
        let shape = receiver.recv_owned().await?;
        assert_ne!(shape, Shape::Square(1.0));
        archean::spawn(|| (), ()).await?.join().await?;
        Ok(())
    }

    // It compiles; it is not run, because that would look for `archean`.
    pub const MAIN: fn() -> anyhow::Result<()> = main;
}

fn main() {
    let _ = program::MAIN;
}
