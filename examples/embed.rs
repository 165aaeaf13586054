//! Two bots in one program, which measure each other: `cargo run --example embed`.

#![expect(clippy::print_stdout, reason = "the result")]

use canary_bot::{Bot, Seed, Snapshot};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let owl = Bot::builder("owl".parse()?).start().await?;
    let seed: Seed = owl.address().to_string().parse()?;
    let duck = Bot::builder("duck".parse()?).seed(seed).start().await?;
    let measured =
        |snapshot: &Snapshot| snapshot.present().any(|node| node.pair.main().latest().is_some());
    for node in duck.wait_for(measured).await.iter().flat_map(|snapshot| snapshot.present()) {
        println!("{}: {:?}", node.record.name, node.pair.main().latest());
    }
    duck.leave().await;
    Ok(())
}
