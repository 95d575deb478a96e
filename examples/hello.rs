//! The smallest program: one child, one channel each way.

#[archean::data]
struct Question {
    numbers: Vec<u64>,
}

#[archean::main]
async fn main() -> Result<(), archean::Error> {
    let (mut questions, inbox) = archean::channel::<Question>();
    let (answers, mut replies) = archean::channel::<u64>();
    let child = archean::spawn(sum, (inbox, answers)).await?;
    for n in 1..=3 {
        questions.send(Question { numbers: (1..=n * 10).collect() }).await?;
        println!("1 + … + {} = {}", n * 10, *replies.recv().await?);
    }
    drop(questions);
    println!("the child answered {} questions", child.join().await?);
    Ok(())
}

async fn sum(mut questions: archean::Receiver<Question>, mut answers: archean::Sender<u64>) -> u32 {
    let mut count = 0;
    while let Ok(question) = questions.recv().await {
        println!("a question of {} numbers", question.numbers.len());
        let sum = question.numbers.iter().map(|number| number.to_native()).sum();
        if answers.send(sum).await.is_err() {
            break;
        }
        count += 1;
    }
    count
}
