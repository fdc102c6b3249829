//! An AMQP 0.9.1 exchange that gets the notice as a persistent JSON message. The broker has taken it when it confirms it, and
//! when a queue was there to keep it: a message that no queue wants comes back, and is sent again later.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};

use super::reactor::{self, Bounds};
use super::{Letter, Receipt, SendError, secret, tls};
use crate::settings::Amqp;

/// A broker that answers later than this is taken for dead.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// The code of a connection that ends well.
const SUCCESS: u16 = 200;
/// Delivery mode: it survives the broker's restart.
const PERSISTENT: u8 = 2;

/// What a broker may send in one connection besides the notice itself, should it give that back. Who is asked to keep one notice needs
/// some 2 kB; the library keeps what comes, ten times as large.
const ANSWERS_BYTES_MAX: usize = 128 << 10;
/// The farewell; then the connection is cut.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// A broker. Each notice has a connection of its own: in one that waits for the next notice, the library would keep what a broker sends
/// unasked, for as long as it sends.
#[derive(Debug)]
pub struct Publisher {
    config: Amqp,
}

impl Publisher {
    pub fn new(config: Amqp) -> Self {
        Self { config }
    }

    pub async fn send(&self, letter: &Letter, receipt: &Receipt) -> Result<(), SendError> {
        match tokio::time::timeout(ANSWERS_WITHIN, self.publish(letter, receipt)).await {
            Ok(done) => done,
            Err(_) => Err(SendError::Down(format!(
                "{} did not answer within {} s",
                self.place(),
                ANSWERS_WITHIN.as_secs()
            ))),
        }
    }

    /// The broker, without a password.
    fn place(&self) -> String {
        let uri: Result<AMQPUri, _> = self.config.url.reveal().parse();
        uri.map_or_else(
            |_| "the broker".into(),
            |u| format!("{}:{}", u.authority.host, u.authority.port),
        )
    }

    async fn publish(&self, letter: &Letter, receipt: &Receipt) -> Result<(), SendError> {
        let text = letter.text();
        let (connection, channel) = self.connect(bounds_for(&text)).await?;
        let done = self.publish_in(&channel, letter, &text, receipt).await;
        // It is taken, or not: no task waits for the farewell.
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CLOSES_WITHIN, connection.close(SUCCESS, "OK".into())).await;
            drop(channel);
        });
        done
    }

    async fn publish_in(
        &self,
        channel: &Channel,
        letter: &Letter,
        text: &str,
        receipt: &Receipt,
    ) -> Result<(), SendError> {
        let place = self.place();
        let down = |e: lapin::Error| SendError::Down(format!("{place}: {e}"));
        let first = letter.notice.events.first();
        let volume = first.map_or("", |e| e.volume.as_str());
        let key = self
            .config
            .routing_key
            .clone()
            .unwrap_or_else(|| format!("{}.{volume}", letter.kind()));
        let created = letter.notice.created_at;
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(letter.notice.notice_id.as_str().into())
            .with_type(letter.kind().into())
            .with_app_id("purge-agent".into())
            .with_timestamp(created);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirmation = channel
            .basic_publish(
                self.config.exchange.as_str().into(),
                key.as_str().into(),
                options,
                text.as_bytes(),
                properties,
            )
            .await
            .map_err(down)?
            .await
            .map_err(down)?;
        match confirmation {
            Confirmation::Ack(None) => {
                receipt.taken();
                Ok(())
            }
            Confirmation::Ack(Some(_)) => Err(SendError::Refused(format!(
                "{place}: no queue is bound to exchange {} for routing key {key}",
                self.config.exchange
            ))),
            Confirmation::Nack(_) => Err(SendError::Down(format!("{place} could not keep the message"))),
            Confirmation::NotRequested => Err(SendError::Down(format!("{place} confirms nothing"))),
        }
    }

    async fn connect(&self, bounds: Bounds) -> Result<(Connection, Channel), SendError> {
        let place = self.place();
        let down = |e: lapin::Error| SendError::Down(tls::with_cure(format!("{place}: {e}")));
        let mut uri: AMQPUri = self
            .config
            .url
            .reveal()
            .parse()
            .map_err(|e| SendError::Never(format!("{place}: {e}")))?;
        if let Some(file) = &self.config.password_file {
            uri.authority.userinfo.password = secret(file)?;
        }
        bound(&mut uri);
        let properties = ConnectionProperties::default().with_connection_name("purge-agent".into());
        let tls = match uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => Some(tls::client(self.config.ca.as_deref())?),
        };
        let connection = reactor::connect(uri, tls, bounds, properties)
            .await
            .map_err(down)?;
        let exchange = self.config.exchange.as_str();
        // One that is there is used as it is, of any kind.
        let probe = connection.create_channel().await.map_err(down)?;
        let options = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let table = FieldTable::default;
        let is_there = probe
            .exchange_declare(exchange.into(), ExchangeKind::Topic, options, table())
            .await
            .is_ok();
        let channel = match is_there {
            true => probe,
            // The broker has closed the channel that asked for what is not there.
            false => connection.create_channel().await.map_err(down)?,
        };
        if !is_there {
            let options = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            channel
                .exchange_declare(exchange.into(), ExchangeKind::Topic, options, table())
                .await
                .map_err(|e| {
                    SendError::Down(format!("{place}: exchange {exchange} cannot be declared: {e}"))
                })?;
        }
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(down)?;
        Ok((connection, channel))
    }
}

/// What a broker may send that gets this notice: it gives it back, with the heads of its frames, where no queue wants it.
fn bounds_for(text: &str) -> Bounds {
    Bounds {
        bytes: ANSWERS_BYTES_MAX.saturating_add(text.len().saturating_mul(2)),
        time: ANSWERS_WITHIN.saturating_add(CLOSES_WITHIN),
    }
}

/// What a broker may have the client set memory aside for: buffers of 32 frames each way, before anything is sent. A broker that names no
/// bound for a frame would get 128 GiB, and the client does not know yet who listens there.
fn bound(uri: &mut AMQPUri) {
    /// What RabbitMQ proposes.
    const FRAME_BYTES_MAX: u32 = 128 << 10;
    const CHANNELS_MAX: u16 = 16;
    let query = &mut uri.query;
    let within = |asked: Option<u32>| {
        asked
            .filter(|n| *n > 0)
            .map_or(FRAME_BYTES_MAX, |n| n.min(FRAME_BYTES_MAX))
    };
    query.frame_max = Some(within(query.frame_max));
    query.channel_max = Some(
        query
            .channel_max
            .filter(|n| *n > 0)
            .map_or(CHANNELS_MAX, |n| n.min(CHANNELS_MAX)),
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_broker_has_the_agent_set_aside_more_than_its_own_bounds() {
        let bounds = |url: &str| {
            let mut uri: AMQPUri = url.parse().unwrap();
            bound(&mut uri);
            (uri.query.frame_max, uri.query.channel_max)
        };
        let own = (Some(128 << 10), Some(16));
        for more in [
            "",
            "?frame_max=0&channel_max=0",
            "?frame_max=4294967295&channel_max=65535",
        ] {
            assert_eq!(bounds(&format!("amqp://localhost/%2f{more}")), own, "{more}");
        }
        let less = bounds("amqp://localhost/%2f?frame_max=8192&channel_max=2");
        assert_eq!(less, (Some(8192), Some(2)));
    }
}
