//! A program whose processes are on several machines. It does what its first argument says, and tests watch it.

mod guests;
mod talk;

use std::env;

#[archean::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["talk"] => talk::all().await,
        ["sum", workers] => guests::sum(workers.parse()?).await,
        ["stay", marks] => guests::stay(marks).await,
        ["stream", marks] => guests::stream(marks).await,
        ["losses", marks] => guests::losses(marks).await,
        ["later", marks] => guests::later(marks).await,
        ["whole", cores] => guests::whole(cores.parse()?).await,
        _ => anyhow::bail!("{arguments:?} is nothing to do"),
    }
}
