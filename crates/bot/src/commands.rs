//! The commands and their arguments, as the help shows them.

use clap::{Arg, Command, value_parser};

use crate::demo::BOTS_MAX;
use crate::grid::METRICS;
use crate::settings::time;
use crate::{assets, demo, flags};

const EXIT_CODES: &str = "Examples:\n  \
     canary-bot demo\n  \
     canary-bot --name eagle --target bird-owl:8081 --target bird-hawk:8081\n  \
     canary-bot status --server http://bird-owl:8080 --token-file /etc/canary-bot/api-token\n\n\
     Exit codes: 0 ok, 1 failed, 2 usage or configuration, 4 the name is taken by a living node.\n\
     Settings: flag before environment before configuration file before default. \
     An empty variable is unset.\n\
     Documentation: https://github.com/canary-bot/canary-bot/tree/main/docs";

/// The whole command line.
pub(crate) fn command() -> Command {
    Command::new("canary-bot")
        .version(crate::VERSION)
        .about(
            "Measures the network between the hosts of a distributed system by a communicating mesh",
        )
        .after_help(EXIT_CODES)
        .args(settings())
        .args_conflicts_with_subcommands(true)
        .max_term_width(110)
        .subcommand(running())
        .subcommand(demonstration())
        .subcommand(status())
        .subcommands(asking())
        .subcommand(probing())
        .subcommand(doctor())
        .subcommand(config())
        .subcommand(certificates())
        .subcommand(tokens())
        .subcommand(files())
        .subcommand(completion())
        .subcommand(manual())
}

fn settings() -> impl Iterator<Item = Arg> {
    flags::with_headings().map(|(heading, flag)| flag.arg().help_heading(heading))
}

fn running() -> Command {
    let run = Command::new("run").about("Run the bot (the default)");
    run.args(settings()).after_help(EXIT_CODES)
}

fn demonstration() -> Command {
    Command::new("demo")
        .about("Run a whole mesh in this process on loopback, and show it")
        .arg(
            Arg::new("bots")
                .long("bots")
                .value_name("NUMBER")
                .help(format!("How many bots, from 2 to {BOTS_MAX}"))
                .default_value("5")
                .value_parser(bots),
        )
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("TIME")
                .help(
                    "End after this time, such as 10s: with 0 if the matrix was whole, with 1 if not",
                )
                .value_parser(time),
        )
        .arg(
            Arg::new("fault")
                .long("fault")
                .value_name("FAULT")
                .help("Break something after some seconds, and show what is said of it")
                .value_parser(clap::builder::EnumValueParser::<demo::Fault>::new()),
        )
}

fn status() -> Command {
    Command::new("status")
        .about(
            "Ask a bot what is wrong with its mesh: the verdict, the counts, and every open incident",
        )
        .args(server_args())
        .arg(switch("json", "Write JSON"))
        .after_help(
            "Exit codes: 0 nothing critical is open, 1 the bot could not be asked, 2 usage, \
             3 something critical is open.",
        )
}

fn doctor() -> Command {
    Command::new("doctor")
        .about(
            "Check what the bot needs on this host: settings, addresses, ports, targets, \
             and the ways back",
        )
        .args(settings())
        .arg(switch(
            "no-join",
            "Do not join the mesh for some seconds, which tells whether others reach this host",
        ))
        .arg(switch("json", "Write a JSON object for each finding"))
        .after_help(
            "Takes the settings of the bot, from the same flags, variables and files. \
             Where that bot runs already it is asked; else the mesh is joined under its name \
             and left again.\n\
             Exit codes: 0 no problem, 1 it could not be looked at, 2 usage, 3 a problem was found.",
        )
}

fn config() -> Command {
    Command::new("config")
        .about("Write, check or show the configuration of a bot")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("init")
                .about("Write a configuration file with every setting as a comment to stdout"),
        )
        .subcommand(
            Command::new("check")
                .about(
                    "Check the whole configuration, say everything that is wrong, and end; \
                     as --dry-run",
                )
                .args(settings())
                .after_help("Exit codes: 0 it works, 2 it does not."),
        )
        .subcommand(
            Command::new("show")
                .about("Show every setting with its value and who set it; secrets are hidden")
                .args(settings())
                .args(form_args())
                .after_help("Exit codes: 0 ok, 2 something cannot be read."),
        )
}

fn certificates() -> Command {
    let hosts = "Names and addresses at which a host is dialled; the first names the files";
    let about = "Make a certificate authority for development, and a certificate for each host";
    let directory = Arg::new("directory").long("directory").value_name("PATH");
    Command::new("tls")
        .about("Make certificates to try TLS with")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("dev")
                .about(about)
                .arg(
                    Arg::new("host")
                        .required(true)
                        .num_args(1..)
                        .value_name("NAME[,NAME]")
                        .help(hosts),
                )
                .arg(directory.default_value("tls").help("Where to write")),
        )
}

fn tokens() -> Command {
    let path = Arg::new("path").required(true).value_name("PATH");
    Command::new("token")
        .about("Make tokens")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("new")
                .about("Write a random token to a new file that only its owner can read")
                .arg(path.help("The file; none may be there yet. - is stdout")),
        )
}

fn files() -> Command {
    let kinds = clap::builder::PossibleValuesParser::new(assets::kinds().collect::<Vec<_>>());
    let kind = Arg::new("kind").required(true).value_name("KIND").help("What to write");
    let directory = Arg::new("directory").value_name("PATH").default_value(".");
    Command::new("assets")
        .about(
            "Write files that come with the program: dashboards, alerts, a systemd unit, \
             the interfaces",
        )
        .arg(kind.value_parser(kinds))
        .arg(directory.help("Where to write it"))
        .arg(switch("force", "Replace files that are there already"))
}

fn completion() -> Command {
    let shell = Arg::new("shell").required(true);
    Command::new("completion")
        .about("Write a completion script for a shell")
        .arg(shell.value_parser(value_parser!(clap_complete::Shell)))
}

fn manual() -> Command {
    let command = Arg::new("command").num_args(0..=2).value_name("COMMAND");
    Command::new("man")
        .about("Write the manual page, or that of a command")
        .arg(command.help("Such as status, or tls dev"))
}

fn bots(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| (2..=BOTS_MAX as u64).contains(count));
    count.ok_or_else(|| format!("choose from 2 to {BOTS_MAX}"))
}

/// The commands that ask a bot, besides `status`.
fn asking() -> [Command; 6] {
    let command = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).args(server_args())
    };
    let one_of = |name: &'static str, help: &'static str, values: &'static [&'static str]| {
        Arg::new(name)
            .long(name)
            .value_name(name.to_uppercase())
            .help(help)
            .value_parser(clap::builder::PossibleValuesParser::new(values))
    };
    let named = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("NAME").help(help)
    };
    let metric = || one_of("metric", "What to show", &METRICS).default_value("total");
    [
        command("nodes", "List all nodes that a bot knows, dead ones too").args(form_args()).arg(
            one_of("state", "Only nodes in this state", &["alive", "suspect", "dead", "left"]),
        ),
        command("pairs", "List the pairs of all nodes, each direction by itself")
            .args(form_args())
            .arg(named("source", "Only pairs from this node"))
            .arg(named("target", "Only pairs to this node"))
            .arg(one_of(
                "state",
                "Only pairs in this state",
                &["ok", "failed", "unknown", "stale"],
            )),
        command("matrix", "Print the matrix: rows measure columns")
            .arg(metric())
            .arg(switch("json", "Write JSON")),
        command("events", "List what happened: nodes, paths, incidents and marks")
            .args(form_args())
            .arg(switch("follow", "Go on, with each event as it happens").short('f')),
        command("top", "Show the matrix, the verdict and the incidents live")
            .arg(metric())
            .arg(switch("once", "Print it once, and end"))
            .arg(switch("json", "Write it once as JSON, and end")),
        command(
            "check",
            "Check that a bot works, for health checks of containers; other bots do not matter",
        )
        .arg(switch("json", "Write JSON"))
        .after_help("Exit codes: 0 it works, 2 usage, 3 it does not, or cannot be asked."),
    ]
}

fn probing() -> Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("PATH").help(help)
    };
    let length = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("TIME")
            .default_value(default)
            .value_parser(time)
            .help(help)
    };
    let target =
        |text: &str| text.parse::<canary_core::Target>().map_err(|error| error.to_string());
    Command::new("probe")
        .about("Measure the round trip to the mesh ports of bots, like ping. Joins no mesh")
        .arg(
            Arg::new("target")
                .required(true)
                .num_args(1..)
                .value_name("HOST:PORT")
                .value_parser(target)
                .help("Mesh ports of bots"),
        )
        .arg(
            Arg::new("count")
                .short('c')
                .long("count")
                .value_name("NUMBER")
                .value_parser(value_parser!(u64).range(1..))
                .help("End after so many [default: none]"),
        )
        .arg(length("interval", "1s", "Time between two attempts").short('i'))
        .arg(length("timeout", "3s", "How long to wait for an answer"))
        .arg(path("ca-cert-path", "PEM file with the authorities to trust: dials by TLS"))
        .arg(
            path("server-cert-path", "PEM file with the certificate to present")
                .requires("server-key-path")
                .requires("ca-cert-path"),
        )
        .arg(path("server-key-path", "PEM file with its key").requires("server-cert-path"))
        .arg(path("mesh-token-file", "File whose first line is a token of the mesh"))
        .arg(switch("json", "Write a JSON object for each attempt"))
        .after_help(
            "Exit codes: 0 every target answered at least once, 1 one did not, 2 usage. \
             Ctrl-C ends it with the summary.",
        )
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(clap::ArgAction::SetTrue).help(help)
}

fn form_args() -> [Arg; 2] {
    [
        switch("json", "Write JSON").conflicts_with("plain"),
        switch("plain", "Write lines with tabs between columns, without a header"),
    ]
}

/// Which bot a command asks, and how.
fn server_args() -> [Arg; 3] {
    [
        Arg::new("server")
            .long("server")
            .value_name("URL")
            .env("CANARY_SERVER")
            .default_value("http://127.0.0.1:8080")
            .help("API of the bot to ask"),
        Arg::new("token-file")
            .long("token-file")
            .value_name("PATH")
            .env("CANARY_TOKEN_FILE")
            .help("File whose first line is a token for that API"),
        Arg::new("ca-cert-path")
            .long("ca-cert-path")
            .value_name("PATH")
            .env("CANARY_CA_CERT_PATH")
            .help("PEM file with the authorities to trust with https [default: the system's]"),
    ]
}
