//! The admin listener: health and metrics, never on a public address.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use crate::error::Result;
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
        Ok(Arc::new(Door { site: Arc::new(Health { ready: tools.ready.clone() }) }))
    }
}

struct Health {
    ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Health {
    fn page(&self, path: &str) -> reply::Answer {
        match path {
            "/health" => Ok(reply::text("alive\n")),
            "/metrics" => Ok(reply::typed(Outgoing::whole(metric::render()), OPENMETRICS)),
            "/ready" if (self.ready)() => Ok(reply::text("ready\n")),
            "/ready" => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or shutting down")),
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
            true => self.page(path),
            false => Err(Refusal::method("GET, HEAD")),
        };
        let response =
            answer.unwrap_or_else(|refusal| reply::render(refusal, &parts, &Base::default(), None, false, false));
        visit::finish(response, &parts.method, note)
    }
}
