//! The HTTP server of both ports: actix behind connections that take one request at a time.

use std::{io, net::TcpListener, time::Duration};

use actix_http::HttpService;
use actix_service::map_config;
use actix_web::{
    App, Error,
    body::MessageBody,
    dev::{AppConfig, Server, Service, ServiceRequest, ServiceResponse, fn_factory, fn_service},
    error::DispatchError,
    http::{ConnectionType, KeepAlive},
    middleware::{Next, from_fn},
    rt::net::TcpStream,
    web::ServiceConfig,
};
use strum::VariantArray;

use super::{
    connection::{Body, Connection, CutOff, OneAtATime},
    places::Places,
};

/// How long a client may go on sending after an early answer.
const LINGER: Duration = Duration::from_secs(5);

const CUT_OFF: &str = "tripwire_connections_cut_off_total";

/// What an HTTP server may take up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) workers: usize,
    pub(super) places: usize,
    pub(super) shutdown_timeout_seconds: u64,
}

/// Serves until its handle is told to stop. The caller handles signals.
pub(super) fn start(
    listener: TcpListener,
    size: Size,
    configure: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> io::Result<Server> {
    for why in CutOff::VARIANTS {
        metrics::counter!(CUT_OFF, "reason" => why.into_str()).increment(0);
    }
    let places = Places::new(size.places);
    let builder = Server::build();
    let shutdown = builder.graceful_shutdown_signal();
    let server = builder
        .workers(size.workers)
        // A quarter more than places, for connections that cannot take a place yet. Further ones wait in the backlog.
        .max_concurrent_connections(size.places.div_ceil(size.workers) * 5 / 4)
        .shutdown_timeout(size.shutdown_timeout_seconds)
        .disable_signals()
        .listen("http", listener, move || {
            let (configure, places, shutdown) =
                (configure.clone(), places.clone(), shutdown.clone());
            fn_factory(move || {
                let app = App::new()
                    .wrap(from_fn(one_request))
                    .configure(configure.clone());
                let shutdown = shutdown.clone();
                let http = HttpService::build()
                    .graceful_shutdown_signal(move || {
                        let signal = shutdown.clone();
                        async move { signal.notified().await }
                    })
                    // Every limit but this one is kept by the connection.
                    .client_disconnect_timeout(LINGER)
                    .client_request_timeout(Duration::ZERO)
                    .keep_alive(KeepAlive::Os)
                    .on_connect_ext(|stream: &OneAtATime<TcpStream>, data| {
                        data.insert(stream.connection());
                    })
                    .h1(map_config(app, |()| AppConfig::default()));
                let http = actix_service::ServiceFactory::new_service(&http, ());
                let places = places.clone();
                async move {
                    let http = std::rc::Rc::new(http.await?);
                    Ok::<_, ()>(fn_service(move |stream: TcpStream| {
                        let (http, connection) = (http.clone(), Connection::new(places.enter()));
                        serve(http, stream, connection)
                    }))
                }
            })
        })?;
    Ok(server.run())
}

/// Until the client goes, or is cut off.
async fn serve(
    http: impl Service<(OneAtATime<TcpStream>, Option<std::net::SocketAddr>), Error = DispatchError>,
    stream: TcpStream,
    connection: Connection,
) -> Result<(), DispatchError> {
    stream.set_nodelay(true)?;
    let client = stream.peer_addr().ok();
    let requests = http.call((OneAtATime::new(stream, connection.clone()), client));
    tokio::select! {
        // What has come is read before it can be cut off.
        biased;
        ended = requests => ended.map(drop),
        why = connection.cut_off() => {
            metrics::counter!(CUT_OFF, "reason" => why.into_str()).increment(1);
            Ok(())
        }
    }
}

/// Tells the connection where each request ends.
async fn one_request(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let connection = request.conn_data::<Connection>().cloned();
    let body = Body::announced(request.headers());
    if let Some(connection) = &connection {
        connection.announce(body);
    }
    let mut response = next.call(request).await?;
    if connection.is_some_and(|connection| connection.answer(body)) {
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}
