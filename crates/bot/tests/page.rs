//! The page in a real browser, with real bots behind it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::process::Command;

use support::tools::{node_with, program, said};
use support::{Plan, TOKEN, alone, plans, settle};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/page.mjs");

#[test]
fn the_page_works_in_a_browser() {
    let _turn = alone();
    let (Some(node), Some(chrome)) = (node_with("playwright-core"), program("chromium")) else {
        return;
    };
    let mut plans = plans(5);
    plans[1].name = "victim".to_owned();
    plans[3].name = "<img src=x onerror=alert(1)>".to_owned();
    for (index, plan) in plans.iter_mut().enumerate() {
        plan.more.extend([
            "--label".to_owned(),
            format!("zone={}", if index < 3 { "east" } else { "west" }),
        ]);
        // Objects of JavaScript have keys of such names.
        plan.more.extend([
            "--label".to_owned(),
            if index == 0 { "constructor=x" } else { "__proto__=y" }.to_owned(),
        ]);
    }
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let pictures = std::env::temp_dir().join(format!("canary-page-{}", std::process::id()));
    std::fs::create_dir_all(&pictures).unwrap();
    let bot = |bot: &support::Bot| serde_json::json!({ "name": bot.name(), "url": format!("http://{}", bot.api()), "pid": bot.pid() });
    let plan = serde_json::json!({
        "bots": bots.iter().map(bot).collect::<Vec<_>>(),
        "token": TOKEN,
        "chrome": chrome.get_program().to_str().unwrap(),
        "pictures": pictures,
    });
    let mut node: Command = node;
    let (done, text) = said(node.args([SCRIPT, &plan.to_string()]));
    println!("{text}\npictures: {}", pictures.display());
    assert!(done, "{text}");
}
