//! The program: reads the configuration from the environment, and serves until it is told to stop.

use std::process::ExitCode;
use std::sync::Arc;

use keystead::{BoxError, KeyStore};
use keystead_example_service::{Config, ProfileTable, describe, router};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{}", describe(&*e));
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), BoxError> {
    let config = Config::from_variables(|name| std::env::var(name).ok())?;
    let stack = config.open_stack().await?;
    // A wrong configuration is found here, and not by the first user.
    stack.check().await?;

    let listener = TcpListener::bind(config.listen).await?;
    tracing::info!("listening on {}", listener.local_addr()?);
    let app = router(stack, Arc::new(ProfileTable::default()));
    axum::serve(listener, app).with_graceful_shutdown(stop_signal()).await?;
    tracing::info!("all requests are answered, stopping");
    Ok(())
}

/// Waits for Ctrl-C or, on Unix, `SIGTERM`.
async fn stop_signal() {
    let interrupt = async { tokio::signal::ctrl_c().await.expect("the process can listen for Ctrl-C") };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("the process can listen for SIGTERM");
        tokio::select! {
            () = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    interrupt.await;
}
