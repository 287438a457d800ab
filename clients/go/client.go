// Package turnout opens connections to a Turnout gateway for the generated clients in turnoutv1.
package turnout

//go:generate sh -c "protoc -I ../.. --plugin=$(go tool -n protoc-gen-go) --plugin=$(go tool -n protoc-gen-go-grpc) --go_out=. --go_opt=module=turnout --go-grpc_out=. --go-grpc_opt=module=turnout protos/predict.proto"

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Which calls gRPC repeats. Before it repeats a call, gRPC waits as long as the gateway says in
// grpc-retry-pushback-ms.
//
//go:embed service_config.json
var serviceConfig string

// Options say how to reach a gateway.
type Options struct {
	// CAFile has the authority of the gateway's certificate in PEM. Empty: no TLS.
	CAFile string
	// TokenFile has the caller's token. It is read for each call, so it can be replaced. Empty: no token.
	TokenFile string
	// Connections is the size of the pool. 0 means 4. A connection belongs to one worker of the
	// gateway and carries at most 32 calls at a time; more calls wait for their turn.
	Connections int
	// Timeout is for calls whose context has no deadline. 0 means one second.
	Timeout time.Duration
}

// Pool is a fixed number of connections. Calls take them in turn. A generated client takes it in
// place of a *grpc.ClientConn: turnoutv1.NewPredictorClient(pool).
type Pool struct {
	connections []*grpc.ClientConn
	timeout     time.Duration
	next        atomic.Uint64
}

// Dial makes the pool for the gateway at target, such as "gateway.example:8500". It does not wait
// for a connection.
func Dial(target string, options Options) (*Pool, error) {
	security := insecure.NewCredentials()
	if options.CAFile != "" {
		tls, err := credentials.NewClientTLSFromFile(options.CAFile, "")
		if err != nil {
			return nil, fmt.Errorf("read the authority %s: %w", options.CAFile, err)
		}
		security = tls
	}
	dialOptions := []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithNoProxy(), // http_proxy is for web pages
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second}),
	}
	if options.TokenFile != "" {
		dialOptions = append(dialOptions, grpc.WithPerRPCCredentials(tokenFile(options.TokenFile)))
	}
	if options.Connections == 0 {
		options.Connections = 4
	}
	if options.Timeout == 0 {
		options.Timeout = time.Second
	}
	pool := &Pool{timeout: options.Timeout}
	for range options.Connections {
		connection, err := grpc.NewClient(target, dialOptions...)
		if err != nil {
			return nil, errors.Join(err, pool.Close())
		}
		pool.connections = append(pool.connections, connection)
	}
	return pool, nil
}

// Invoke makes a unary call over the next connection.
func (p *Pool) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.timeout)
		defer cancel()
	}
	return p.connection().Invoke(ctx, method, args, reply, opts...)
}

// NewStream opens a stream over the next connection.
func (p *Pool) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return p.connection().NewStream(ctx, desc, method, opts...)
}

// Close ends all connections.
func (p *Pool) Close() error {
	var failures []error
	for _, connection := range p.connections {
		failures = append(failures, connection.Close())
	}
	return errors.Join(failures...)
}

func (p *Pool) connection() *grpc.ClientConn {
	return p.connections[p.next.Add(1)%uint64(len(p.connections))]
}

// tokenFile is a path; it sends the file's content as a bearer token.
type tokenFile string

func (f tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(string(f))
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(token))}, nil
}

// RequireTransportSecurity makes gRPC refuse to send a token that others on the way could read.
func (f tokenFile) RequireTransportSecurity() bool { return true }
