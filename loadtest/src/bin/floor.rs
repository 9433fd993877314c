//! The floor: the simplest possible ext_authz server, which allows everything.
//!
//! It uses tonic and Envoy's messages on one thread and reads nothing of a request. A server that
//! costs more spends the difference on its own work; one that costs less has a leaner path between
//! socket and response.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use envoy_types::pb::google::rpc::Status;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};

/// Allows every Check.
#[derive(Parser)]
struct Options {
    /// TCP address to listen on.
    #[arg(long, default_value = "127.0.0.1:4433")]
    listen: String,
    /// Unix socket to listen on instead.
    #[arg(long)]
    socket: Option<PathBuf>,
}

struct Floor;

#[tonic::async_trait]
impl Authorization for Floor {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        drop(request);
        let ok = CheckResponse { status: Some(Status::default()), ..CheckResponse::default() };
        Ok(tonic::Response::new(ok))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let server =
        tonic::transport::Server::builder().tcp_nodelay(true).add_service(AuthorizationServer::new(Floor));
    match options.socket {
        Some(path) => server.serve_with_incoming(UnixListenerStream::new(UnixListener::bind(path)?)).await?,
        None => {
            let listener = TcpListener::bind(&options.listen).await?;
            server.serve_with_incoming(TcpListenerStream::new(listener)).await?;
        }
    }
    Ok(())
}
