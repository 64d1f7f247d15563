//! Every wire vector of the specification: the exact request of a call, and what a reply becomes. No server
//! is needed. One test a vector, named `operation/vector-id`.

#[path = "../adapter/src/convert.rs"]
#[allow(dead_code, unreachable_pub, reason = "the adapter uses the rest")]
mod convert;
#[path = "../adapter/src/dispatch.rs"]
#[allow(dead_code, unreachable_pub, reason = "the adapter uses the rest")]
mod dispatch;
#[path = "support/fake.rs"]
#[allow(unreachable_pub, reason = "other tests use it too")]
mod fake;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Map, Value, json};

use convert::{Args, How};
use fake::{Answer, Fake, Request};

const VECTORS: &str = include_str!("generated/vectors.json");

fn main() {
    let arguments = Arguments::from_args();
    let file: Value = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    let vectors = file["vectors"].as_array().expect("a list of vectors");
    assert!(vectors.len() >= 14, "there are vectors of every operation");
    let trials = vectors
        .iter()
        .map(|vector| {
            let name = format!("{}/{}", text(&vector["operation"]), text(&vector["id"]));
            let vector = vector.clone();
            Trial::test(name, move || check(&vector))
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Fails a vector with what was wanted and what came.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, wanted: T) -> Result<(), Failed> {
    if is == wanted { Ok(()) } else { Err(format!("{what}: {is:?}, wanted {wanted:?}").into()) }
}

#[tokio::main(flavor = "current_thread")]
async fn check(vector: &Value) -> Result<(), Failed> {
    let answer = answer(&vector["reply"]);
    let patience = match answer {
        Answer::Silence => Duration::from_millis(50),
        _ => Duration::from_secs(30),
    };
    let fake = Fake::start(move |_| answer.clone()).await;
    let client = mq9::connect(&fake.url)
        .timeout(patience)
        .connect_timeout(Duration::from_secs(30))
        .reconnect_wait(Duration::from_millis(1))
        .await?;
    let call = vector["call"].as_object().cloned().unwrap_or_default();
    let how = How::wire();
    let args = Args(&call);
    let called = dispatch::call(&client, text(&vector["method"]), &args, &how).await;
    let result = called.ok_or("there is no such operation")?;
    let requests = fake.requests();
    if vector["request"].is_null() {
        same("requests", requests.len(), 0)?;
    } else if requests.is_empty() {
        return Err(format!("nothing was sent: {result:?}").into());
    }
    for request in &requests {
        check_request(request, &vector["request"])?;
    }
    if let Some(attempts) = vector["attempts"].as_u64() {
        same("attempts", requests.len() as u64, attempts)?;
    }
    match result {
        Ok(value) if vector["is_ok"] == json!(true) => {
            same("result", value, in_base64(&vector["ok"]))?;
        }
        Err(convert::Failed::Sdk(error)) if vector["is_ok"] == json!(false) => {
            let wanted = &vector["error"];
            same("kind", error.kind().as_str(), text(&wanted["kind"]))?;
            if let Some(code) = wanted.get("code") {
                same("code", error.code(), code.as_str())?;
            }
            if let Some(field) = wanted.get("field") {
                same("field", error.field(), field.as_str())?;
            }
            if let Some(operation) = error.operation() {
                same("operation", operation, text(&vector["operation"]))?;
            }
        }
        other => return Err(format!("{other:?}, wanted {vector}").into()),
    }
    client.close().await;
    Ok(())
}

fn answer(reply: &Value) -> Answer {
    match text(&reply["status"]) {
        "no_responders" => return Answer::Status(503),
        "timeout" => return Answer::Silence,
        "connection_closed" => return Answer::Close,
        _ => {}
    }
    Answer::Body(match (reply.get("json"), reply.get("text"), reply.get("base64")) {
        (Some(value), _, _) => value.to_string().into_bytes(),
        (_, Some(body), _) => text(body).as_bytes().to_vec(),
        (_, _, Some(body)) => STANDARD.decode(text(body)).expect("base64"),
        _ => br#"{"error":""}"#.to_vec(),
    })
}

fn check_request(request: &Request, wanted: &Value) -> Result<(), Failed> {
    same("subject", request.subject.as_str(), text(&wanted["subject"]))?;
    if wanted["empty"] == json!(true) {
        same("body", request.payload.as_slice(), b"")?;
    }
    let payload = &wanted["payload"];
    if let Some(value) = wanted.get("json").or_else(|| payload.get("json")) {
        let body: Value = serde_json::from_slice(&request.payload)?;
        same("body", &body, value)?;
    } else if let Some(bytes) = bytes_of(payload) {
        same("payload", &request.payload, &bytes)?;
    }
    if let Some(headers) = wanted["headers"].as_object() {
        let sent: BTreeMap<&str, &str> =
            request.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let wanted = headers.iter().map(|(k, v)| (k.as_str(), text(v))).collect();
        same("headers", sent, wanted)?;
    }
    for pattern in wanted["forbid_headers"].as_array().into_iter().flatten() {
        let pattern = text(pattern).to_lowercase();
        let forbidden = |name: &str| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        let found = request.headers.iter().find(|(name, _)| forbidden(&name.to_lowercase()));
        same("forbidden header", found, None)?;
    }
    Ok(())
}

fn bytes_of(payload: &Value) -> Option<Vec<u8>> {
    let fields = payload.as_object()?;
    match (fields.get("text"), fields.get("base64")) {
        (Some(value), _) => Some(text(value).as_bytes().to_vec()),
        (_, Some(value)) => STANDARD.decode(text(value)).ok(),
        _ => None,
    }
}

/// An expected result with payloads in base64.
fn in_base64(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(in_base64).collect(),
        Value::Object(fields) => {
            let mut result = Map::new();
            for (name, field) in fields {
                let bytes = if name == "payload" { bytes_of(field) } else { None };
                let value = match bytes {
                    Some(bytes) => json!({"base64": STANDARD.encode(bytes)}),
                    None => in_base64(field),
                };
                result.insert(name.clone(), value);
            }
            Value::Object(result)
        }
        other => other.clone(),
    }
}
