//! A directory of services: processes that hold no channel to each other connect by the ids that it gives out.
//!
//! Services say their names to the directory, clients ask it for a name, and then talk to the service directly.

use archean::{Child, Failure, ProcessId, Receiver, Sender};

/// What the directory is told and asked.
#[archean::data]
enum Line {
    /// This process is the service of that name.
    Offer(String),
    /// Who is the service of that name?
    Find(String),
}

const SERVICES: [(&str, u64); 2] = [("double", 2), ("triple", 3)];
const CLIENTS: u64 = 3;

#[archean::main]
async fn main() -> Result<(), Failure> {
    let calls = SERVICES.len() + CLIENTS as usize * SERVICES.len();
    let directory = archean::spawn(directory, calls as u32).await?;
    let mut services = Vec::new();
    for (name, factor) in SERVICES {
        let offer = archean::spawn(service, (directory.id().0, name.to_owned(), factor)).name(name);
        services.push(offer.await?);
    }
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(archean::spawn(client, (directory.id().0, number)).await?);
    }
    for client in clients {
        println!("{}", client.result().await?);
    }
    for service in services {
        println!("{} has served {} clients", service.name().to_owned(), service.result().await?);
    }
    finish(directory).await
}

async fn finish(directory: Child<Result<u32, Failure>>) -> Result<(), Failure> {
    println!("the directory has answered {} questions", directory.result().await?);
    Ok(())
}

/// Answers so many calls, those that ask for a name that is not known yet as soon as it is.
async fn directory(calls: u32) -> Result<u32, Failure> {
    let mut known: Vec<(String, u64)> = Vec::new();
    let mut waiting: Vec<(String, Sender<u64>)> = Vec::new();
    let mut answered = 0;
    for _ in 0..calls {
        let connection = archean::accept().await?;
        let peer = connection.peer.0;
        let (answer, mut lines) = connection.typed::<u64, Line>();
        match lines.recv_owned().await? {
            Line::Offer(name) => known.push((name, peer)),
            Line::Find(name) => waiting.push((name, answer)),
        }
        for (name, mut answer) in std::mem::take(&mut waiting) {
            match known.iter().find(|(service, _)| *service == name) {
                Some((_, id)) => {
                    answer.send(*id).await?;
                    answered += 1;
                }
                None => waiting.push((name, answer)),
            }
        }
    }
    Ok(answered)
}

/// Multiplies what clients send, until each has had its turn.
async fn service(directory: u64, name: String, factor: u64) -> Result<u64, Failure> {
    let (mut lines, _answer) = archean::connect::<Line, u64>(ProcessId(directory)).await?;
    lines.send(Line::Offer(name)).await?;
    for _ in 0..CLIENTS {
        let (mut products, mut numbers) = archean::accept().await?.typed::<u64, u64>();
        while let Ok(number) = numbers.recv_owned().await {
            products.send(factor * number).await?;
        }
    }
    Ok(CLIENTS)
}

/// Has a number multiplied by every service in turn.
async fn client(directory: u64, number: u64) -> Result<String, Failure> {
    let mut text = number.to_string();
    for (name, _) in SERVICES {
        let (mut lines, mut answer) = archean::connect::<Line, u64>(ProcessId(directory)).await?;
        lines.send(Line::Find(name.to_owned())).await?;
        let service = ProcessId(answer.recv_owned().await?);
        let (mut numbers, mut products): (Sender<u64>, Receiver<u64>) = archean::connect(service).await?;
        numbers.send(number).await?;
        text += &format!(", {name} is {}", products.recv_owned().await?);
    }
    Ok(text)
}
