//! `[pipelines.<name>.hook]`: who is told about the updates of a pipeline.
//!
//! Invariant: all errors are reported, and none shows the secret.

use std::time::Duration;

use config::{Value, ValueKind};
use serde::Deserialize;

use crate::model::hooks::{Hook, Webhook, WebhookUrl};
use crate::model::settings::{self, Secret};
use crate::model::time::format_duration;

/// How long a request may take, where the settings do not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The bounds of that.
const TIMEOUTS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(60)];
/// The most notes of a request, where the settings do not say.
const BATCH: usize = 100;
/// The most that the settings may say.
const MAX_BATCH: usize = 10_000;
/// The shortest secret, in bytes.
const MIN_SECRET_BYTES: usize = 16;

/// The settings as they were written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HookSettings {
    url: Option<String>,
    secret: Option<Secret>,
    #[serde(default, deserialize_with = "duration")]
    timeout: Option<Duration>,
    #[serde(default, deserialize_with = "count")]
    batch: Option<usize>,
    #[serde(default, deserialize_with = "flag")]
    propagate_errors: Option<bool>,
    #[serde(default, deserialize_with = "flag")]
    stream: Option<bool>,
}

fn duration<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Duration>, D::Error> {
    settings::duration(value).map(Some)
}

fn count<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<usize>, D::Error> {
    settings::count(value).map(Some)
}

fn flag<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<bool>, D::Error> {
    settings::flag(value).map(Some)
}

/// Reads a hook.
///
/// # Errors
/// All errors, each with the name of its setting, which is empty for the table itself.
pub(in crate::engine::aggregates) fn read(
    value: Value,
) -> Result<Hook, Vec<(&'static str, String)>> {
    if !matches!(value.kind, ValueKind::Table(_)) {
        return Err(vec![("", "is not a table of settings".to_owned())]);
    }
    let read = value.try_deserialize::<HookSettings>();
    let settings = read.map_err(|error| vec![("", error.to_string())])?;
    let mut errors = Vec::new();
    let stream = settings.stream.unwrap_or(false);
    let webhook = settings.webhook(&mut errors);
    if webhook.is_none() && !stream && errors.is_empty() {
        errors.push(("", "needs url, or stream = true".to_owned()));
    }
    if errors.is_empty() { Ok(Hook { webhook, stream }) } else { Err(errors) }
}

impl HookSettings {
    fn webhook(self, errors: &mut Vec<(&'static str, String)>) -> Option<Webhook> {
        let Some(url) = self.url else {
            let others = [
                ("secret", self.secret.is_some()),
                ("timeout", self.timeout.is_some()),
                ("batch", self.batch.is_some()),
                ("propagate_errors", self.propagate_errors.is_some()),
            ];
            let given = others.into_iter().filter(|(_, given)| *given);
            errors.extend(given.map(|(name, _)| (name, "needs url".to_owned())));
            return None;
        };
        let url = WebhookUrl::parse(&url).map_err(|why| errors.push(("url", why.0))).ok();
        let secret = self.secret.filter(|secret| secret.expose().len() >= MIN_SECRET_BYTES);
        if secret.is_none() {
            let least = format!("must have at least {MIN_SECRET_BYTES} bytes: requests are signed");
            errors.push(("secret", least));
        }
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        let [shortest, longest] = TIMEOUTS;
        if !(shortest..=longest).contains(&timeout) {
            let [from, to] = TIMEOUTS.map(format_duration);
            errors.push(("timeout", format!("must be from {from} to {to}")));
        }
        let batch = self.batch.unwrap_or(BATCH);
        if !(1..=MAX_BATCH).contains(&batch) {
            errors.push(("batch", format!("must be from 1 to {MAX_BATCH}")));
        }
        let propagate_errors = self.propagate_errors.unwrap_or(false);
        Some(Webhook { url: url?, secret: secret?, timeout, batch, propagate_errors })
    }
}

#[cfg(test)]
mod tests {
    use config::{File, FileFormat, Source as _};

    use super::*;

    fn hook(text: &str) -> Result<Hook, Vec<String>> {
        let table = File::from_str(text, FileFormat::Toml).collect().expect("TOML");
        let read = read(Value::new(None, ValueKind::Table(table)));
        read.map_err(|errors| errors.iter().map(|(at, what)| format!("{at}: {what}")).collect())
    }

    #[test]
    fn a_hook_is_a_webhook_or_a_stream_or_both() {
        let url = "url = \"http://a/b\"\nsecret = \"0123456789abcdef\"\n";
        let webhook = hook(url).expect("valid").webhook.expect("has a URL");
        assert_eq!(
            (webhook.timeout, webhook.batch, webhook.propagate_errors),
            (TIMEOUT, BATCH, false)
        );
        assert!(!format!("{webhook:?}").contains("0123456789"));
        let both = hook(&format!("{url}stream = true\ntimeout = \"1s\"\nbatch = \"7\"\n"));
        let Ok(Hook { webhook: Some(webhook), stream: true }) = both else { panic!("{both:?}") };
        assert_eq!((webhook.timeout, webhook.batch), (Duration::from_secs(1), 7));
        assert_eq!(hook("stream = \"true\""), Ok(Hook { webhook: None, stream: true }));
    }

    #[test]
    fn errors_name_their_settings_and_show_no_secret() {
        for (text, expected) in [
            ("", &[": needs url, or stream"][..]),
            ("stream = false", &[": needs url, or stream"]),
            ("stream = true\nbatch = 5", &["batch: needs url"]),
            ("secret = \"hunter2\"", &["secret: needs url"]),
            ("url = \"http://a\"\nsecret = \"hunter2\"", &["secret: must have at least 16 bytes"]),
            (
                "url = \"ftp://a\"\ntimeout = \"1h\"\nbatch = 20000",
                &[
                    "url: is not the URL",
                    "secret: must have",
                    "timeout: must be from 10ms to 1m",
                    "batch: must be from 1",
                ],
            ),
            ("url = \"http://a\"\nsecrets = \"hunter2\"", &[": unknown field `secrets`"]),
        ] {
            let errors = hook(text).expect_err(text);
            assert_eq!(errors.len(), expected.len(), "{errors:?}");
            for (error, start) in errors.iter().zip(expected) {
                assert!(error.starts_with(start) && !error.contains("hunter2"), "{error}");
            }
        }
    }
}
