//! The admin listener: health and metrics, never on a public address.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use crate::error::Result;
use crate::hub::Hub;
use crate::net::Handler;
use crate::proto::http::Door;
use crate::proto::http::base::Base;
use crate::proto::http::body::{Note, Outgoing};
use crate::proto::http::reply::{self, Refusal};
use crate::proto::http::serve::{Connection, Site};
use crate::proto::http::visit;
use crate::proto::{Protocol, Section, Tools};
use crate::telemetry::metric;

/// The language.
pub struct Admin;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Protocol for Admin {
    fn name(&self) -> &'static str {
        "admin"
    }

    fn defaults(&self) -> toml::Table {
        toml::Table::new()
    }

    fn open(&self, _section: &Section, tools: &Tools) -> Result<Arc<dyn Handler>> {
        let health =
            Health { ready: tools.ready.clone(), hub: tools.hub.clone(), asked: tokio::sync::Mutex::default() };
        Ok(Arc::new(Door { site: Arc::new(health) }))
    }
}

/// How long an answer counts: whoever asks more often costs nothing.
const FRESH: Duration = Duration::from_secs(1);

struct Health {
    ready: Arc<dyn Fn() -> bool + Send + Sync>,
    hub: Hub,
    asked: tokio::sync::Mutex<Option<(Instant, Vec<String>)>>,
}

impl Health {
    /// Why it is not ready; nothing when it is.
    async fn troubles(&self) -> Vec<String> {
        if !(self.ready)() {
            return vec!["starting or shutting down".to_owned()];
        }
        let mut asked = self.asked.lock().await;
        if let Some((_, troubles)) = asked.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return troubles.clone();
        }
        let troubles = self.hub.troubles().await;
        *asked = Some((Instant::now(), troubles.clone()));
        troubles
    }

    async fn page(&self, path: &str) -> reply::Answer {
        match path {
            "/health" => Ok(reply::text("alive\n")),
            "/metrics" => {
                metric::state(self.troubles().await.is_empty(), self.hub.stuck_publishes());
                Ok(reply::typed(Outgoing::whole(metric::render()), OPENMETRICS))
            }
            "/ready" => match self.troubles().await {
                troubles if troubles.is_empty() => Ok(reply::text("ready\n")),
                troubles => {
                    let words = format!("not ready: {}", troubles.join("; "));
                    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, words))
                }
            },
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, "here are /health, /ready and /metrics")),
        }
    }
}

#[async_trait]
impl Site for Health {
    async fn answer(&self, request: Request<Incoming>, connection: &Arc<Connection>) -> Response<Outgoing> {
        let (parts, _) = request.into_parts();
        let path = parts.uri.path();
        let note = Note::new(connection, visit::verb(&parts.method), path.to_owned(), Instant::now());
        let answer = match parts.method == Method::GET || parts.method == Method::HEAD {
            true => self.page(path).await,
            false => Err(Refusal::method("GET, HEAD")),
        };
        let response =
            answer.unwrap_or_else(|refusal| reply::render(refusal, &parts, &Base::default(), None, false, false));
        visit::finish(response, &parts.method, note)
    }
}
