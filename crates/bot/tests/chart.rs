//! The Helm chart: rendered by real Helm, validated, refused where it should be, and run.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::lab::{Lab, NameServer, ResolverFile};
use support::tools::{helm, kubernetes_validate, node_with, program, python, said};
use support::{Plan, TOKEN, alone, get_json, wait};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/canary-bot");

/// The oldest and the newest Kubernetes that the chart is for.
const KUBERNETES: [&str; 2] = ["1.25", "1.37"];

/// Everything this test needs, or none of it.
fn tools_are_there() -> bool {
    helm().is_some() && kubernetes_validate().is_some() && python().is_some()
}

/// All value files that the chart is tried with.
fn value_files() -> Vec<PathBuf> {
    let files =
        std::fs::read_dir(format!("{CHART}/ci")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| !path.to_string_lossy().contains("_test.")).collect();
    files.sort();
    files
}

fn render(more: &[&str]) -> (bool, String) {
    said(helm().unwrap().args(["template", "canary", CHART, "--namespace", "probes"]).args(more))
}

/// Manifests as values.
fn parsed(manifests: &str) -> Vec<Value> {
    // A key that stands twice in a map is refused: some readers take the first, some the last.
    let script = "import json,sys,yaml\nclass Strict(yaml.SafeLoader): pass\n\
                  def once(loader, node):\n keys=[loader.construct_object(k) for k,_ in node.value]\n assert len(keys)==len(set(keys)), keys\n return yaml.SafeLoader.construct_mapping(loader, node, deep=True)\n\
                  Strict.add_constructor('tag:yaml.org,2002:map', once)\njson.dump([d for d in yaml.load_all(sys.stdin, Strict) if d], sys.stdout)";
    let mut child = python()
        .unwrap()
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "this is no YAML:\n{manifests}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> Vec<&'a Value> {
    manifests.iter().filter(|manifest| manifest["kind"] == kind).collect()
}

/// The one workload among manifests.
fn workload(manifests: &[Value]) -> &Value {
    manifests
        .iter()
        .find(|manifest| matches!(manifest["kind"].as_str(), Some("DaemonSet" | "Deployment")))
        .unwrap()
}

/// Whether the policies of a mesh let a bot of it reach a port of another, by name or number.
/// Without any policy everything passes.
fn policies_admit(policies: &[&Value], bot: &Value, port: &Value) -> bool {
    let selects = |selector: &Value| {
        let wanted = selector["matchLabels"].as_object();
        wanted.is_none_or(|wanted| wanted.iter().all(|(key, value)| bot["labels"][key] == *value))
    };
    let holding: Vec<_> =
        policies.iter().filter(|policy| selects(&policy["spec"]["podSelector"])).collect();
    let admits = |rule: &Value| {
        let ports = rule["ports"].as_array();
        let port_fits = ports.is_none_or(|ports| {
            ports.iter().any(|of| of["port"] == port["name"] || of["port"] == port["containerPort"])
        });
        let from = rule["from"].as_array();
        port_fits
            && from.is_none_or(|from| {
                from.iter()
                    .any(|peer| peer["podSelector"].is_object() && selects(&peer["podSelector"]))
            })
    };
    holding.is_empty()
        || holding.iter().any(|policy| {
            policy["spec"]["ingress"].as_array().is_some_and(|rules| rules.iter().any(admits))
        })
}

/// Whether the policies, if there are any, let anybody reach a port.
fn policies_name(policies: &[&Value], port: &Value) -> bool {
    let names = |rule: &Value| {
        rule["ports"]
            .as_array()
            .is_some_and(|ports| ports.iter().any(|of| of["port"] == port["name"]))
    };
    policies.is_empty()
        || policies.iter().any(|policy| {
            policy["spec"]["ingress"].as_array().is_some_and(|rules| rules.iter().any(names))
        })
}

#[test]
fn every_value_file_renders_the_same_twice_by_both_helms_and_is_valid_from_the_oldest_to_the_newest_kubernetes()
 {
    if !tools_are_there() {
        return;
    }
    let files = value_files();
    assert!(files.len() >= 10, "{files:?}");
    let directory = std::env::temp_dir().join(format!("canary-chart-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    for file in &files {
        let path = file.to_str().unwrap();
        let (done, lint) = said(helm().unwrap().args(["lint", "--strict", CHART, "-f", path]));
        assert!(done, "{path}: {lint}");
        let (done, manifests) = render(&["-f", path]);
        assert!(done, "{path}: {manifests}");
        assert_eq!(render(&["-f", path]).1, manifests, "{path}: not the same twice");
        let written = directory.join("manifests.yaml");
        std::fs::write(&written, &manifests).unwrap();
        for version in KUBERNETES {
            let (done, why) = said(
                kubernetes_validate().unwrap().args(["--strict", "-k", version]).arg(&written),
            );
            assert!(done, "{path} for Kubernetes {version}: {why}");
        }
        let all = parsed(&manifests);
        let pod = &workload(&all)["spec"]["template"];
        let container = &pod["spec"]["containers"][0];
        assert_eq!(pod["spec"]["enableServiceLinks"], false, "{path}");
        assert_eq!(
            (
                &container["securityContext"]["allowPrivilegeEscalation"],
                &pod["spec"]["securityContext"]["runAsNonRoot"]
            ),
            (&false.into(), &true.into())
        );
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            assert!(mount["mountPath"].as_str().unwrap().starts_with('/'), "{path}: {mount}");
        }
        // Whether the ports speak TLS is the same for everybody who asks them.
        let served = container["livenessProbe"]["httpGet"]["scheme"].as_str().unwrap();
        let is_mutual = ["site-tls", "site-existing-tls", "own-certificates"]
            .iter()
            .any(|name| path.contains(name));
        assert_eq!(served, if is_mutual { "HTTPS" } else { "HTTP" }, "{path}");
        for probe in ["startupProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["scheme"], served, "{path}");
        }
        let monitors =
            of_kind(&all, "PodMonitor").into_iter().chain(of_kind(&all, "ServiceMonitor"));
        for monitor in monitors {
            let endpoint = ["podMetricsEndpoints", "endpoints"]
                .iter()
                .find_map(|key| monitor["spec"][key].get(0))
                .unwrap();
            assert_eq!(endpoint["scheme"], served.to_lowercase(), "{path}");
            let credentials = &endpoint["authorization"]["credentials"];
            let secret = of_kind(&all, "Secret")
                .into_iter()
                .find(|secret| secret["metadata"]["name"] == credentials["name"]);
            let token = secret
                .map(|secret| secret["stringData"][credentials["key"].as_str().unwrap()].clone());
            assert!(
                token.is_none_or(|token| token
                    .as_str()
                    .is_some_and(|token| !token.is_empty() && !token.contains(','))),
                "{path}: {credentials}"
            );
        }
        for value in of_kind(&all, "ConfigMap")[0]["data"].as_object().unwrap().values() {
            assert!(
                !value.as_str().unwrap().contains("e+"),
                "{path}: {value} is no number that a bot reads"
            );
        }
        let policies = of_kind(&all, "NetworkPolicy");
        for port in container["ports"].as_array().unwrap() {
            // Bots reach each other at the mesh port; who may reach the API is for the values to
            // say.
            let is_open = if port["name"] == "meshport" {
                policies_admit(&policies, &pod["metadata"], port)
            } else {
                policies_name(&policies, port)
            };
            assert!(is_open, "{path}: policies cut {port}");
        }
        // What is secret is in no ConfigMap, and not in the workload.
        for manifest in all.iter().filter(|manifest| manifest["kind"] != "Secret") {
            assert!(
                !manifest.to_string().contains("of-the-api")
                    && !manifest.to_string().contains("between-bots"),
                "{path}: {manifest}"
            );
        }
    }
    // The engine of Helm 4 makes the same of them.
    let script = "import json,sys,yaml\nfrom helm_python import Chart\n\
                  out={}\nwith Chart.load(sys.argv[1]) as chart:\n for path in sys.argv[2:]:\n  made=chart.render(values=yaml.safe_load(open(path)) or {},name='canary',namespace='probes')\n  \
                  out[path]=len([d for text in (made.values() if isinstance(made,dict) else [made]) for d in yaml.safe_load_all(text if isinstance(text,str) and ('kind:' in text) else '') if d])\n\
                  json.dump(out,sys.stdout)";
    let (done, counts) = said(python().unwrap().args(["-c", script, CHART]).args(&files));
    assert!(done, "{counts}");
    let counts: BTreeMap<String, usize> = serde_json::from_str(&counts).unwrap();
    for file in &files {
        let path = file.to_str().unwrap();
        let ours = parsed(&render(&["-f", path]).1).len();
        assert_eq!(counts[path], ours, "{path}: Helm 4 makes another number of manifests");
    }
    let _ = std::fs::remove_dir_all(directory);
}

/// Custom resources, and the packages that hold what their authors define of them.
const CUSTOM: [(&str, &str); 3] = [
    ("cert-manager.io/", "@kubernetes-models/cert-manager"),
    ("gateway.networking.k8s.io/", "@kubernetes-models/gateway-api"),
    ("monitoring.coreos.com/", "@kubernetes-models/prometheus-operator"),
];

/// Whether custom resources are as their definitions say, without any field that these do not know;
/// what is wrong if not. The compiler finds unknown fields, and the validators all else.
fn custom_resources_are_valid(manifests: &[Value]) -> (bool, String) {
    let (mut imports, mut checks) = (BTreeSet::new(), String::new());
    for manifest in manifests {
        let (version, kind) =
            (manifest["apiVersion"].as_str().unwrap(), manifest["kind"].as_str().unwrap());
        let Some((_, package)) = CUSTOM.iter().find(|(group, _)| version.starts_with(group)) else {
            continue;
        };
        imports.insert(format!("import {{ {kind} }} from \"{package}/{version}/{kind}\";\n"));
        // The class knows these two itself.
        let rest: serde_json::Map<_, _> = manifest
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .filter(|(key, _)| key != "apiVersion" && key != "kind")
            .collect();
        checks.push_str(&format!("new {kind}({}).validate();\n", Value::from(rest)));
    }
    // Next to the packages, where imports find them.
    let tools = PathBuf::from(std::env::var_os("CANARY_TEST_TOOLS").unwrap());
    let folder = tools.join(format!("manifests-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("check.mts"), imports.into_iter().collect::<String>() + &checks)
        .unwrap();
    let options =
        ["--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "check.mts"];
    let compiler = tools.join("node_modules/typescript/bin/tsc");
    let mut result =
        said(program("node").unwrap().current_dir(&folder).arg(compiler).args(options));
    if result.0 {
        result = said(program("node").unwrap().current_dir(&folder).arg("check.mjs"));
    }
    std::fs::remove_dir_all(folder).unwrap();
    result
}

#[test]
fn custom_resources_are_what_their_authors_define() {
    if !tools_are_there()
        || CUSTOM.iter().any(|(_, package)| node_with(package).is_none())
        || node_with("typescript").is_none()
    {
        return;
    }
    let mut all: Vec<Value> = value_files()
        .iter()
        .flat_map(|file| parsed(&render(&["-f", file.to_str().unwrap()]).1))
        .collect();
    let kinds: BTreeSet<_> = all.iter().filter_map(|manifest| manifest["kind"].as_str()).collect();
    for kind in
        ["Certificate", "GRPCRoute", "HTTPRoute", "PodMonitor", "ServiceMonitor", "PrometheusRule"]
    {
        assert!(kinds.contains(kind), "no value file makes a {kind}");
    }
    let (valid, why) = custom_resources_are_valid(&all);
    assert!(valid, "{why}");
    // It finds a field that nobody knows, and a value of the wrong type.
    let monitor = all.iter().position(|manifest| manifest["kind"] == "PodMonitor").unwrap();
    let (mut unknown, mut wrong) = (all.swap_remove(monitor), Value::Null);
    wrong.clone_from(&unknown);
    unknown["spec"]["podMetricsEndpoints"][0]["interva"] = "1s".into();
    wrong["spec"]["podMetricsEndpoints"][0]["interval"] = "often".into();
    for (manifest, words) in [(unknown, "interva"), (wrong, "pattern")] {
        let (valid, why) = custom_resources_are_valid(&[manifest]);
        assert!(!valid && why.contains(words), "{words}: {why}");
    }
}

#[test]
fn the_checker_of_policies_fails_on_what_the_originals_chart_made() {
    let bot = serde_json::json!({ "labels": { "app.kubernetes.io/name": "canary-bot" } });
    let port =
        |name: &str, number: u16| serde_json::json!({ "name": name, "containerPort": number });
    // Its chart admitted the API port alone as soon as a ServiceMonitor was made.
    let policy = serde_json::json!({ "spec": {
        "podSelector": { "matchLabels": { "app.kubernetes.io/name": "canary-bot" } },
        "ingress": [{ "ports": [{ "port": 8080 }], "from": [{ "namespaceSelector": {} }, { "podSelector": {} }] }],
    } });
    assert!(policies_admit(&[&policy], &bot, &port("apiport", 8080)));
    assert!(!policies_admit(&[&policy], &bot, &port("meshport", 8081)));
    assert!(policies_admit(&[], &bot, &port("meshport", 8081)));
}

#[test]
fn values_that_cannot_work_are_refused_with_what_to_do() {
    if !tools_are_there() {
        return;
    }
    for (set, words) in [
        ("kind=DaemonSet,mesh.MESH_NAME=owl", "leave it out (each takes the name of its node)"),
        ("replicaCount=2,mesh.MESH_NAME=owl", "leave the name out"),
        ("tls.existingSecret=x", "use meshToken"),
        ("kind=Deployment,replicaCount=3,tls.existingSecret=x", "use meshToken"),
        ("kind=Deployment,tls.existingSecret=x,mesh.MESH_TLS=edge", "remove one of them"),
        ("ingress.api.enabled=true", "name a host"),
        ("gateway.mesh.enabled=true", "set mesh.MESH_TLS=edge"),
        ("serviceMonitor.create=true,serviceMonitor.token=x", "set auth.existingSecret.name"),
        ("mesh.MESH_PROBE_INTERVALL=1s", "mesh"),
        ("externalPeers={other.example}", "externalPeers"),
        ("podMonitor.create=true", "set auth.existingSecret.name, auth.token or mesh.MESH_TOKEN"),
        ("podMonitor.create=true,serviceMonitor.create=true,auth.token=x", "choose one"),
        ("kind=Deployment,tls.certManager.enabled=true", "issuerRef"),
        ("no.such=value", "Additional property no is not allowed"),
        ("mesh.PROBE_INTERVAL=1s", "PROBE_INTERVAL"),
        ("ingress.api.host=x", "Additional property host is not allowed"),
    ] {
        let (done, why) = render(&["--set", set]);
        assert!(!done && why.contains(words), "{set}: {why}");
    }
}

#[test]
fn the_commands_of_the_originals_manual_make_two_bots_that_find_each_other() {
    if !tools_are_there() {
        return;
    }
    let mut services = Vec::new();
    let mut wanted = Vec::new();
    for (release, other) in [("canary-00", "canary-01"), ("canary-01", "canary-00")] {
        let set = |key: &str, value: &str| ["--set".to_owned(), format!("mesh.{key}={value}")];
        let join = format!("{release}-canary-bot-mesh:8081");
        let target = format!("{other}-canary-bot-mesh:8081");
        let settings = [
            set("MESH_NAME", release),
            set("MESH_JOIN_ADDRESS", &join),
            set("MESH_TARGET", &target),
        ]
        .concat();
        let (done, manifests) =
            said(helm().unwrap().args(["template", release, CHART]).args(&settings));
        assert!(done, "{manifests}");
        let all = parsed(&manifests);
        assert_eq!(workload(&all)["kind"], "Deployment");
        let data = &of_kind(&all, "ConfigMap")[0]["data"];
        assert_eq!(
            (&data["MESH_NAME"], &data["MESH_TARGET"], &data["MESH_JOIN_ADDRESS"]),
            (&release.into(), &target.clone().into(), &join.into())
        );
        wanted.push(target);
        for service in of_kind(&all, "Service") {
            for port in service["spec"]["ports"].as_array().unwrap() {
                services.push(format!(
                    "{}:{}",
                    service["metadata"]["name"].as_str().unwrap(),
                    port["port"]
                ));
            }
        }
    }
    assert!(
        wanted.iter().all(|target| services.contains(target)),
        "{wanted:?} not in {services:?}"
    );
}

#[test]
fn manifests_for_those_without_helm_are_what_the_chart_makes() {
    if !tools_are_there() {
        return;
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/canary-bot.yaml");
    let values = [
        "--set",
        "auth.existingSecret.name=canary-api",
        "--set",
        "meshToken.existingSecret.name=canary-mesh",
    ];
    let mut command = helm().unwrap();
    let (done, manifests) = said(
        command
            .args(["template", "canary", CHART, "--namespace", "canary", "--skip-tests"])
            .args(values),
    );
    assert!(done, "{manifests}");
    let text = format!(
        "# Made from charts/canary-bot by the test chart.rs with UPDATE_GOLDEN=1; deploy/kubernetes/README.md says how to use it.\n{manifests}"
    );
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(file).unwrap_or_default() == text,
        "{file} is not what the chart makes; run again with UPDATE_GOLDEN=1"
    );
}

/// A container of a pod, started with its exact arguments, variables, user and mounts on a host of
/// the lab.
fn start_pod(
    lab: &Lab,
    number: u8,
    manifests: &[Value],
    secrets: &BTreeMap<&str, &str>,
) -> support::Bot {
    let pod = &workload(manifests)["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let node = format!("node-{number}");
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for source in container["envFrom"].as_array().unwrap() {
        let name = &source["configMapRef"]["name"];
        let data = of_kind(manifests, "ConfigMap")
            .into_iter()
            .find(|map| map["metadata"]["name"] == *name)
            .unwrap()["data"]
            .clone();
        variables.extend(
            data.as_object()
                .unwrap()
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())),
        );
    }
    for variable in container["env"].as_array().unwrap() {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("spec.nodeName") => node.clone(),
            Some(other) => panic!("the field {other} is not known here"),
            None => variable["value"].as_str().unwrap().to_owned(),
        };
        variables.insert(variable["name"].as_str().unwrap().to_owned(), value);
    }
    // Mounts are made in the mount namespace that `ip netns exec` makes; the root is not written
    // to.
    let mut mounts = String::from("mount -t tmpfs -o mode=755 none /etc/canary-bot");
    for mount in container["volumeMounts"].as_array().unwrap() {
        let volume = pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|volume| volume["name"] == mount["name"])
            .unwrap();
        let (path, secret) = (
            mount["mountPath"].as_str().unwrap(),
            secrets[volume["secret"]["secretName"].as_str().unwrap()],
        );
        let file = volume["secret"]["items"][0]["path"].as_str().unwrap();
        let mode = format!("{:o}", volume["secret"]["defaultMode"].as_u64().unwrap());
        mounts.push_str(&format!(
            " && mkdir -p {path} && echo {secret} > {path}/{file} && chown 0:65532 {path}/{file} && chmod {mode} {path}/{file}"
        ));
    }
    let user = pod["securityContext"]["runAsUser"].as_u64().unwrap();
    let program = env!("CARGO_BIN_EXE_canary-bot");
    let arguments: Vec<_> = container["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|argument| argument.as_str().unwrap())
        .collect();
    let run = format!(
        "{mounts} && exec setpriv --reuid {user} --regid {user} --clear-groups --bounding-set=-all --no-new-privs {program} {}",
        arguments.join(" ")
    );
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &lab.hosts[usize::from(number) - 1], "sh", "-c", &run])
        .env_clear()
        .envs(&variables);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stderr(Stdio::piped());
    let plan = Plan {
        name: node,
        address: lab.address(number),
        mesh_port: 8081,
        api_port: 8080,
        seeds: Vec::new(),
        more: Vec::new(),
    };
    plan.start_bare(command)
}

#[test]
fn the_pods_of_a_daemon_set_find_each_other_by_the_headless_service_and_measure() {
    let _turn = alone();
    if !tools_are_there() || program("setpriv").is_none() {
        return;
    }
    let Some(lab) = Lab::build(3) else { return };
    let values =
        ["--set", "auth.existingSecret.name=api", "--set", "meshToken.existingSecret.name=mesh"];
    let (done, manifests) = render(&values);
    assert!(done, "{manifests}");
    let manifests = parsed(&manifests);
    let headless = of_kind(&manifests, "Service")
        .into_iter()
        .find(|service| service["spec"]["clusterIP"] == "None")
        .unwrap();
    assert_eq!(headless["spec"]["publishNotReadyAddresses"], true);
    // The cluster's name server knows the pods of the headless Service by its full name alone.
    let _server = NameServer::start(&lab, |name| {
        if name == "canary-canary-bot-peers.probes.svc.cluster.local" {
            vec![1, 2, 3]
        } else {
            Vec::new()
        }
    });
    let search =
        "search probes.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
    let _files: Vec<_> =
        lab.hosts.iter().map(|host| ResolverFile::write(&lab, host, search)).collect();
    let made = std::fs::create_dir("/etc/canary-bot").is_ok();
    let secrets = BTreeMap::from([("api", TOKEN), ("mesh", "between-the-bots")]);
    let mut bots: Vec<_> =
        (1..=3).map(|number| start_pod(&lab, number, &manifests, &secrets)).collect();
    let whole = wait(Duration::from_secs(30), || {
        bots.iter().all(|bot| {
            let verdict = get_json(bot.api(), "/api/v2/verdict").unwrap_or_default();
            verdict["pairs"]["ok"] == 6 && verdict["nodes"]["known"] == 3
        })
    });
    eprintln!("three pods measure each other after {whole:.1?}");
    let logs: Vec<_> = bots.iter().map(support::Bot::logged).collect();
    if made {
        let _ = std::fs::remove_dir("/etc/canary-bot");
    }
    assert!(whole.is_some(), "{logs:#?}");
    assert!(
        logs[0].contains("name=node-1")
            && logs[0].contains("mesh_token=\"yes\"")
            && logs[0].contains("this is no pod"),
        "{}",
        logs[0]
    );
    assert!(!logs[0].contains("others on this host may"), "{}", logs[0]);
    // Kubernetes asks it to end by SIGTERM, and waits.
    for bot in &mut bots {
        bot.signal("TERM");
        assert!(
            bot.ended(Duration::from_secs(3)).is_some_and(|status| status.success()),
            "{}",
            bot.logged()
        );
    }
}

#[test]
fn the_schema_knows_every_variable_of_the_bot_and_no_other() {
    let schema: Value = serde_json::from_str(
        &std::fs::read_to_string(format!("{CHART}/values.schema.json")).unwrap(),
    )
    .unwrap();
    let known: BTreeSet<_> = schema["properties"]["mesh"]["propertyNames"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    let (done, help) = said(Command::new(env!("CARGO_BIN_EXE_canary-bot")).arg("--help"));
    let words = help.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    // The original's chart spells some with a dash.
    let spelled =
        ["MESH_DEBUG-GRPC", "MESH_CLEANUP-NODES", "MESH_CLEANUP-SAMPLES"].map(str::to_owned);
    let ours: BTreeSet<_> =
        words.filter(|word| word.starts_with("MESH_")).map(str::to_owned).chain(spelled).collect();
    assert!(done && known == ours, "{:?}", known.symmetric_difference(&ours).collect::<Vec<_>>());
}
