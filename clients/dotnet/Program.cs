// Asks a gateway for predictions and reports an outcome:
//
//     dotnet run -- https://gateway.example:8500 token.txt
//
// The system's store of authorities must know that of the gateway's certificate. An http address is
// called without TLS and without a token.
using Grpc.Core;
using Grpc.Health.V1;
using Grpc.Net.Client;
using Grpc.Net.Client.Configuration;
using Turnout.V1;

using var channel = Open(args[0], args.Length > 1 ? args[1] : null);
var predictor = new Predictor.PredictorClient(channel);
DateTime Deadline() => DateTime.UtcNow.AddSeconds(5);

// Health: the empty name is the whole gateway; a model's name is that model.
var health = await new Health.HealthClient(channel)
    .CheckAsync(new HealthCheckRequest { Service = "churn" }, deadline: Deadline());
Console.WriteLine($"health: {health.Status}");

// By key: the gateway reads the customer's stored features.
var churn = await predictor.PredictAsync(
    new PredictRequest { Model = "churn", Rows = { new Row { Keys = { "S000042" } } } },
    deadline: Deadline());
Console.WriteLine($"churn: {churn.Scores[0]:F2} by version {churn.Version}, {churn.Role}");
if (churn.Holdout) Console.WriteLine("the customer is in the control group: do not act");

// Several offers for one customer: one row for each, with inputs that only the caller knows.
var prices = new Dictionary<string, float> { ["O001"] = 10, ["O002"] = 30, ["O003"] = 20 };
var offers = prices.Keys.Order().ToList();
var request = new PredictRequest { Model = "nba", RequestId = "crm-17" };
request.Rows.AddRange(offers.Select(offer => new Row
{
    Keys = { "S000042", offer },
    Named = { ["price"] = prices[offer] },
    NamedText = { ["channel"] = "shop" },
}));
var ranked = await predictor.PredictAsync(request, deadline: Deadline());
var best = ranked.Scores.IndexOf(ranked.Scores.Max());
Console.WriteLine($"offer: {offers[best]}, {ranked.Scores[best]:F2}");

// The outcome, reported twice: the key makes the second report harmless.
for (var report = 0; report < 2; report++)
{
    var reply = await predictor.ReportOutcomeAsync(
        new OutcomeRequest
        {
            PredictionId = ranked.PredictionId,
            Row = (uint)best,
            Name = "accepted",
            Value = 1,
            IdempotencyKey = "order-4711",
        },
        deadline: Deadline());
    Console.WriteLine($"outcome: duplicate {reply.Duplicate}");
}

// Errors have a code and a sentence.
try
{
    await predictor.PredictAsync(new PredictRequest(request) { Model = "fraud" }, deadline: Deadline());
}
catch (RpcException error)
{
    Console.WriteLine($"refused: {error.StatusCode}");
}

static GrpcChannel Open(string address, string? tokenFile)
{
    // Before gRPC repeats a call, it waits as long as the gateway says in grpc-retry-pushback-ms.
    var repeats = new MethodConfig
    {
        Names = { new MethodName { Service = "turnout.v1.Predictor" } },
        RetryPolicy = new RetryPolicy
        {
            MaxAttempts = 4,
            InitialBackoff = TimeSpan.FromMilliseconds(10),
            MaxBackoff = TimeSpan.FromMilliseconds(200),
            BackoffMultiplier = 2,
            RetryableStatusCodes = { StatusCode.Unavailable, StatusCode.Cancelled },
        },
    };
    var options = new GrpcChannelOptions
    {
        ServiceConfig = new ServiceConfig
        {
            MethodConfigs = { repeats },
            RetryThrottling = new RetryThrottlingPolicy { MaxTokens = 100, TokenRatio = 0.1 },
        },
        HttpHandler = new SocketsHttpHandler
        {
            // A connection carries at most 32 calls at a time; .NET opens more when it needs them.
            EnableMultipleHttp2Connections = true,
            KeepAlivePingDelay = TimeSpan.FromSeconds(10),
            KeepAlivePingTimeout = TimeSpan.FromSeconds(2),
            UseProxy = false, // proxies are for web pages
        },
    };
    if (tokenFile is not null)
    {
        var token = CallCredentials.FromInterceptor(async (_, metadata) =>
            metadata.Add("authorization", $"Bearer {(await File.ReadAllTextAsync(tokenFile)).Trim()}"));
        options.Credentials = ChannelCredentials.Create(ChannelCredentials.SecureSsl, token);
    }
    return GrpcChannel.ForAddress(address, options);
}
