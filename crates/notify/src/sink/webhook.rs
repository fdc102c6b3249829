//! An HTTP endpoint that gets the notice as JSON by POST. It has taken it when it answers 2xx.
//!
//! Headers as in the Standard Webhooks convention: `webhook-id` (the notice's name, the same at every attempt; so is
//! `idempotency-key`, which gateways know), `webhook-timestamp`
//! (seconds since 1970), and with a secret `webhook-signature: v1,BASE64`, the HMAC-SHA256 of `ID.TIMESTAMP.BODY`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use sha2::Sha256;

use super::{Letter, Receipt, SendError, secret, tls};
use crate::settings::Webhook;
use purge_base::clock;

/// So much of a refusal is told on.
const ANSWER_BYTES_MAX: usize = 500;

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// An HTTP endpoint.
pub struct Poster {
    config: Webhook,
    client: Option<Http>,
}

impl Poster {
    pub fn new(config: Webhook) -> Self {
        Self { config, client: None }
    }

    fn client(&mut self) -> Result<&Http, SendError> {
        if self.client.is_none() {
            let tls = HttpsConnectorBuilder::new().with_tls_config(self.tls()?);
            let connector = tls.https_or_http().enable_http1().build();
            // A connection that was idle may be half closed, and then it is unknown whether the notice arrived.
            let client = Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .retry_canceled_requests(false)
                .build(connector);
            self.client = Some(client);
        }
        self.client
            .as_ref()
            .ok_or_else(|| SendError::Down("no HTTP client".into()))
    }

    /// Where nothing is encrypted, no authority needs to be trusted.
    fn tls(&self) -> Result<ClientConfig, SendError> {
        match self.config.url.is("https") {
            true => tls::client(self.config.ca.as_deref()),
            false => tls::trusting_none(),
        }
    }

    pub async fn send(&mut self, letter: &Letter, receipt: &Receipt) -> Result<(), SendError> {
        let url = self.config.url.clone();
        let place: Uri = url
            .reveal()
            .parse()
            .map_err(|e| SendError::Never(format!("{url}: {e}")))?;
        let body = letter.text();
        let id = &letter.notice.notice_id;
        let now = clock::wall().unix();
        let mut request = Request::post(place)
            .header("content-type", "application/json")
            .header("user-agent", concat!("purge-agent/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("idempotency-key", id)
            .header("webhook-timestamp", now);
        if let Some(file) = &self.config.secret_file {
            request = request.header("webhook-signature", signature(&secret(file)?, id, now, &body)?);
        }
        if let Some(file) = &self.config.token_file {
            request = request.header(AUTHORIZATION, bearer(&secret(file)?)?);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| SendError::Never(e.to_string()))?;
        let limit = Duration::from_secs(self.config.timeout);
        let client = self.client()?;
        let answer = async {
            let answer = client.request(request).await.map_err(|e| in_full(&e))?;
            let status = answer.status();
            // The rest of the answer does not matter, nor whether it arrives.
            if status.is_success() {
                receipt.taken();
                return Ok((status, Bytes::new()));
            }
            let said = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok::<_, String>((status, said.map(|b| b.to_bytes()).unwrap_or_default()))
        };
        let (status, said) = match tokio::time::timeout(limit, answer).await {
            Err(_) => {
                return Err(SendError::Down(format!(
                    "{url} did not answer within {} s",
                    limit.as_secs()
                )));
            }
            Ok(Err(why)) => return Err(SendError::Down(tls::with_cure(format!("{url}: {why}")))),
            Ok(Ok(answer)) => answer,
        };
        if status.is_success() {
            return Ok(());
        }
        let words = format!(
            "{url} answered {status}: {}",
            String::from_utf8_lossy(&said).trim()
        );
        // What is overloaded or broken is so for every notice.
        match status.is_server_error() || status == hyper::StatusCode::TOO_MANY_REQUESTS {
            true => Err(SendError::Down(words)),
            false => Err(SendError::Refused(words)),
        }
    }
}

/// An error and what is behind it.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        words = format!("{words}: {e}");
        source = e.source();
    }
    words
}

/// The token as RFC 6750 has it.
fn bearer(token: &str) -> Result<HeaderValue, SendError> {
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let unfit = "the token cannot stand in a header: write it in one line of ASCII";
    let mut value = value.map_err(|_| SendError::Down(unfit.into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// `v1,BASE64`. A secret that begins with `whsec_` is base64, as the convention has it; another is taken as it is.
fn signature(secret: &str, id: &str, timestamp: i64, body: &str) -> Result<String, SendError> {
    let key = match secret.strip_prefix("whsec_") {
        Some(text) => STANDARD
            .decode(text)
            .map_err(|e| SendError::Down(format!("the secret after whsec_ is no base64: {e}")))?,
        None => secret.as_bytes().to_vec(),
    };
    if key.is_empty() {
        return Err(SendError::Down("the secret is empty".into()));
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|e| SendError::Down(e.to_string()))?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_convention() {
        // The example of the Standard Webhooks libraries.
        let signed = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            "{\"test\": 2432232314}",
        );
        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(signature("", "i", 0, "b").is_err() && signature("whsec_?", "i", 0, "b").is_err());
    }
}
