#[archean::data]
struct Parcel {
    reply: archean::Sender<u32>,
}

async fn deliver(out: &mut archean::Sender<Parcel>, parcel: Parcel) {
    let _ = out.send_ref(&parcel).await;
}

fn main() {
    let _ = deliver;
}
