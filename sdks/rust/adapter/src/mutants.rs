//! Pieces that are broken on purpose: one of them with `MQ9_ADAPTER_MUTANT=name` in the environment, none
//! without. See `mutants` in adapter.yaml for the requirement that each breaks.

use std::sync::OnceLock;

use serde_json::{Map, Value};

/// Whether this piece is broken in this run.
pub fn is(name: &str) -> bool {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("MQ9_ADAPTER_MUTANT").ok()).as_deref() == Some(name)
}

/// Spoils a result or a message.
pub fn spoil(value: &mut Value) {
    match value {
        Value::String(text) => {
            if is("ids-through-doubles")
                && let Ok(id) = text.parse::<i64>()
            {
                *text = ((id as f64) as i128).to_string();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(spoil),
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), &mut *field) {
                    ("msg_id" | "messages" | "renewed", field) => spoil(field),
                    ("payload_b64", Value::String(text)) if is("payload-as-text") => {
                        use base64::Engine as _;
                        use base64::engine::general_purpose::STANDARD;
                        let bytes = STANDARD.decode(text.as_bytes()).unwrap_or_default();
                        *text = STANDARD.encode(String::from_utf8_lossy(&bytes).as_bytes());
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// Spoils an error.
pub fn spoil_error(fields: &mut Value) {
    let Some(fields) = fields.as_object_mut() else { return };
    if is("error-code-dropped") {
        fields.remove("code");
    }
    if is("field-dropped") {
        fields.remove("field");
    }
    if is("kind-always-server") {
        fields.insert("kind".to_owned(), "server".into());
    }
    if is("timeout-as-closed") && fields["kind"] == "timeout" {
        fields.insert("kind".to_owned(), "connection_closed".into());
    }
}

/// Spoils the arguments of a call.
pub fn spoil_arguments(op: &str, args: &mut Map<String, Value>) {
    if op == "send" && is("send-always-retried") {
        args.insert("retry".to_owned(), true.into());
    }
    if op == "fetch" && is("defaults-always-sent") {
        args.entry("num_msgs").or_insert_with(|| 100.into());
    }
    if op == "consume" && is("never-acknowledges") {
        args.insert("auto_ack".to_owned(), false.into());
    }
    if op == "consume" && is("one-handler-too-many") {
        let concurrency = args.get("concurrency").and_then(Value::as_i64).unwrap_or(1);
        args.insert("concurrency".to_owned(), (concurrency + 1).into());
    }
}
