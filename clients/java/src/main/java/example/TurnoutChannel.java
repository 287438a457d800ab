package example;

import com.google.gson.Gson;
import io.grpc.CallCredentials;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientCall;
import io.grpc.Deadline;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Reader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;

/**
 * A fixed number of connections to one gateway. Calls take them in turn. Generated stubs take it as
 * they take any channel: {@code PredictorGrpc.newBlockingStub(channel)}.
 *
 * <p>A connection belongs to one worker of the gateway and carries at most 32 calls at a time. The
 * thread of a further call waits here, within the call's deadline. Without that, gRPC would begin
 * calls that it had queued while a connection closes, and end some of them with INTERNAL.
 */
public final class TurnoutChannel extends Channel implements AutoCloseable {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private static final int CALLS_OPEN_MAX = 32;

  private final List<Connection> connections;
  private final CallCredentials token;
  private final Duration timeout;
  private final AtomicInteger next = new AtomicInteger();

  /**
   * Opens the connections when they are first used.
   *
   * @param address such as {@code gateway.example:8500}
   * @param authority the authority of the gateway's certificate in PEM; null: no TLS
   * @param tokenFile the caller's token, read for each call; null: no token
   * @param timeout for calls without a deadline of their own
   */
  public TurnoutChannel(
      String address, Path authority, Path tokenFile, int connections, Duration timeout)
      throws IOException {
    if (tokenFile != null && authority == null) {
      throw new IllegalArgumentException("a token is sent over TLS only: give the authority, too");
    }
    this.timeout = timeout;
    this.token = tokenFile == null ? null : new TokenFile(tokenFile);
    ChannelCredentials security =
        authority == null
            ? InsecureChannelCredentials.create()
            : TlsChannelCredentials.newBuilder().trustManager(authority.toFile()).build();
    Map<String, ?> serviceConfig = serviceConfig();
    this.connections =
        Stream.generate(() -> new Connection(open(address, security, serviceConfig)))
            .limit(connections)
            .toList();
  }

  private static ManagedChannel open(
      String address, ChannelCredentials security, Map<String, ?> serviceConfig) {
    return Grpc.newChannelBuilder(address, security)
        .defaultServiceConfig(serviceConfig)
        .proxyDetector(target -> null) // proxies are for web pages
        .keepAliveTime(10, TimeUnit.SECONDS)
        .keepAliveTimeout(2, TimeUnit.SECONDS)
        .build();
  }

  /**
   * Reads which calls gRPC repeats. Before it repeats a call, gRPC waits as long as the gateway says
   * in grpc-retry-pushback-ms.
   */
  @SuppressWarnings("unchecked")
  private static Map<String, ?> serviceConfig() throws IOException {
    try (Reader reader =
        new InputStreamReader(
            TurnoutChannel.class.getResourceAsStream("service_config.json"),
            StandardCharsets.UTF_8)) {
      return new Gson().fromJson(reader, Map.class);
    }
  }

  @Override
  public <ReqT, RespT> ClientCall<ReqT, RespT> newCall(
      MethodDescriptor<ReqT, RespT> method, CallOptions options) {
    int index = Math.floorMod(next.getAndIncrement(), connections.size());
    if (token != null) {
      options = options.withCallCredentials(token);
    }
    if (options.getDeadline() == null) {
      options = options.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
    }
    Connection connection = connections.get(index);
    return new BoundedCall<>(
        connection.channel.newCall(method, options), connection.turns, options.getDeadline());
  }

  @Override
  public String authority() {
    return connections.get(0).channel.authority();
  }

  /** Ends all connections. Calls that are open end with UNAVAILABLE. */
  @Override
  public void close() {
    connections.forEach(connection -> connection.channel.shutdownNow());
  }

  /** A connection, and the turns of the calls that it may carry at a time. */
  private record Connection(ManagedChannel channel, Semaphore turns) {
    Connection(ManagedChannel channel) {
      this(channel, new Semaphore(CALLS_OPEN_MAX));
    }
  }

  /** Waits for its turn before it starts. If none comes in time, its deadline ends it. */
  private static final class BoundedCall<ReqT, RespT>
      extends SimpleForwardingClientCall<ReqT, RespT> {
    private final Semaphore turns;
    private final Deadline deadline;

    BoundedCall(ClientCall<ReqT, RespT> call, Semaphore turns, Deadline deadline) {
      super(call);
      this.turns = turns;
      this.deadline = deadline;
    }

    @Override
    public void start(Listener<RespT> listener, Metadata headers) {
      boolean taken = takeTurn();
      super.start(
          new SimpleForwardingClientCallListener<>(listener) {
            @Override
            public void onClose(Status status, Metadata trailers) {
              // First, because the listener may begin the next call.
              if (taken) {
                turns.release();
              }
              super.onClose(status, trailers);
            }
          },
          headers);
    }

    private boolean takeTurn() {
      try {
        long left = deadline.timeRemaining(TimeUnit.NANOSECONDS);
        return turns.tryAcquire(left, TimeUnit.NANOSECONDS);
      } catch (InterruptedException error) {
        Thread.currentThread().interrupt(); // the stub sees it, and cancels the call
        return false;
      }
    }
  }

  /** Sends the content of a file as a bearer token. */
  private static final class TokenFile extends CallCredentials {
    private final Path file;

    TokenFile(Path file) {
      this.file = file;
    }

    @Override
    public void applyRequestMetadata(
        RequestInfo request, Executor executor, MetadataApplier applier) {
      executor.execute(
          () -> {
            try {
              Metadata headers = new Metadata();
              headers.put(AUTHORIZATION, "Bearer " + Files.readString(file).strip());
              applier.apply(headers);
            } catch (IOException error) {
              applier.fail(Status.UNAUTHENTICATED.withDescription("no token").withCause(error));
            }
          });
    }
  }
}
