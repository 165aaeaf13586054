//! The original's REST answers.

use super::*;

#[tokio::test]
async fn the_originals_answers_have_its_shape() {
    let api = Api::new();
    for (name, path) in [
        ("v1-nodes.json", "/api/v1/nodes"),
        ("v1-samples.json", "/api/v1/samples"),
        ("version.json", "/version"),
    ] {
        let response = api.ask(request(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json", "{path}");
        // As it is sent: the order of names is part of it.
        let text = String::from_utf8(bytes(response).await).unwrap();
        golden_text(name, text.replace("},{", "},\n{") + "\n");
    }
}

#[tokio::test]
async fn a_bot_alone_leaves_the_list_out_as_proto3_does() {
    let api = Api::new();
    let mut alone = snapshot(0, REFUSED);
    alone.members.clear();
    api.mesh.show(alone);
    let response = api.ask(request("/api/v1/samples").body(Body::empty()).unwrap()).await;
    assert_eq!(bytes(response).await, b"{}");
    assert_eq!(api.get("/api/v1/nodes").await, serde_json::json!({ "nodes": ["owl"] }));
}
