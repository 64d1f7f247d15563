using System.IO.Enumeration;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Mq9.Adapter;
using Xunit;

namespace Mq9.Tests;

/// <summary>Every wire vector of the specification: the exact request of a call, and what a reply becomes.</summary>
public sealed class VectorTests
{
    private static readonly JsonDocumentOptions Depth = new() { MaxDepth = 1000 };
    private static readonly JsonSerializerOptions Deep = new() { MaxDepth = 1000 };

    private static readonly JsonDocument File = JsonDocument.Parse(
        System.IO.File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "Generated", "vectors.json")), Depth);

    public static IEnumerable<TheoryDataRow<string>> Vectors()
    {
        foreach (JsonElement vector in File.RootElement.GetProperty("vectors").EnumerateArray())
        {
            string id = vector.GetProperty("id").GetString()!;
            yield return new TheoryDataRow<string>(id) { TestDisplayName = $"{vector.GetProperty("operation").GetString()}/{id}" };
        }
    }

    [Theory]
    [MemberData(nameof(Vectors))]
    public async Task Vector(string id)
    {
        JsonElement vector = File.RootElement.GetProperty("vectors").EnumerateArray().Single(item => item.GetProperty("id").GetString() == id);
        await using Mq9Client client = FakeConnection.Client((_, _) => Answer(vector.GetProperty("reply")), out FakeConnection connection);
        JsonNode? result = null;
        Mq9Exception? failure = null;
        try
        {
            JsonElement args = JsonDocument.Parse(Call(vector.GetProperty("call")).ToJsonString(Deep), Depth).RootElement;
            result = await Dispatch.Find(vector.GetProperty("method").GetString()!)!(client, args, [], TestContext.Current.CancellationToken);
        }
        catch (Mq9Exception error)
        {
            failure = error;
        }

        if (vector.GetProperty("request").ValueKind == JsonValueKind.Null)
        {
            Assert.Empty(connection.Calls);
        }
        else
        {
            Assert.NotEmpty(connection.Calls);
            Assert.All(connection.Calls, call => CheckRequest(vector.GetProperty("request"), call));
        }

        if (vector.GetProperty("attempts") is { ValueKind: JsonValueKind.Number } attempts)
        {
            Assert.Equal(attempts.GetInt32(), connection.Calls.Count);
        }

        if (vector.GetProperty("is_ok").GetBoolean())
        {
            Assert.Null(failure);
            Assert.Equal(Canonical(Expected(Parse(vector.GetProperty("ok").GetRawText()))), Canonical(Plain(result)));
            return;
        }

        Assert.NotNull(failure);
        JsonElement wanted = vector.GetProperty("error");
        Assert.Equal(wanted.GetProperty("kind").GetString(), failure.Kind.Value);
        Assert.Equal(vector.GetProperty("operation").GetString(), failure.Operation ?? vector.GetProperty("operation").GetString());
        if (wanted.TryGetProperty("code", out JsonElement code))
        {
            Assert.Equal(code.GetString(), failure.Code?.Value);
        }

        if (wanted.TryGetProperty("field", out JsonElement field))
        {
            Assert.Equal(field.GetString(), failure.Field);
        }
    }

    [Fact]
    public void AllVectorsAreHere()
    {
        JsonElement[] vectors = [.. File.RootElement.GetProperty("vectors").EnumerateArray()];
        Assert.True(vectors.Select(vector => vector.GetProperty("operation").GetString()).Distinct().Count() >= 14);
        Assert.Equal(vectors.Length, vectors.Select(vector => vector.GetProperty("id").GetString()).Distinct().Count());
    }

    private static JsonNode? Parse(string json) => JsonNode.Parse(json, documentOptions: Depth);

    private static JsonObject Call(JsonElement call)
    {
        JsonObject result = [];
        foreach (JsonProperty given in call.EnumerateObject())
        {
            if (given.Name == "payload" && given.Value.ValueKind == JsonValueKind.Object)
            {
                JsonProperty form = given.Value.EnumerateObject().Single();
                string name = form.Name switch { "base64" => "payload_b64", "json" => "payload_json", _ => "payload_text" };
                result[name] = form.Name == "json" ? form.Value.GetRawText() : form.Value.GetString();
            }
            else
            {
                result[given.Name] = Parse(given.Value.GetRawText());
            }
        }

        return result;
    }

    private static Task<ReadOnlyMemory<byte>> Answer(JsonElement reply)
    {
        byte[] bytes = """{"error":""}"""u8.ToArray();
        if (reply.ValueKind == JsonValueKind.Object)
        {
            JsonProperty form = reply.EnumerateObject().First(member => member.Value.ValueKind != JsonValueKind.Null);
            bytes = form.Name switch
            {
                "json" => Encoding.UTF8.GetBytes(form.Value.GetRawText()),
                "base64" => form.Value.GetBytesFromBase64(),
                "status" when form.Value.GetString() == "timeout" => throw new Mq9TimeoutException("no reply"),
                "status" when form.Value.GetString() == "no_responders" => throw new Mq9NoRespondersException("nobody serves mq9"),
                "status" => throw new Mq9ConnectionClosedException("the connection broke"),
                _ => Encoding.UTF8.GetBytes(form.Value.GetString()!),
            };
        }

        return Task.FromResult<ReadOnlyMemory<byte>>(bytes);
    }

    private static void CheckRequest(JsonElement wanted, Call call)
    {
        Assert.Equal(wanted.GetProperty("subject").GetString(), call.Subject);
        if (wanted.TryGetProperty("empty", out JsonElement empty) && empty.ValueKind == JsonValueKind.True)
        {
            Assert.True(call.Body.IsEmpty);
        }

        if (wanted.TryGetProperty("json", out JsonElement json) && json.ValueKind != JsonValueKind.Null)
        {
            Assert.Equal(Canonical(Parse(json.GetRawText())), Canonical(Parse(Encoding.UTF8.GetString(call.Body.Span))));
        }

        if (wanted.TryGetProperty("payload", out JsonElement payload) && payload.ValueKind == JsonValueKind.Object)
        {
            JsonProperty form = payload.EnumerateObject().Single();
            if (form.Name == "json")
            {
                Assert.Equal(Canonical(Parse(form.Value.GetRawText())), Canonical(Parse(Encoding.UTF8.GetString(call.Body.Span))));
            }
            else
            {
                Assert.Equal(form.Name == "base64" ? form.Value.GetBytesFromBase64() : Encoding.UTF8.GetBytes(form.Value.GetString()!), call.Body.ToArray());
            }
        }

        Dictionary<string, string> headers = call.Headers?.ToDictionary() ?? [];
        if (wanted.TryGetProperty("headers", out JsonElement expected) && expected.ValueKind == JsonValueKind.Object)
        {
            Assert.Equal(expected.EnumerateObject().ToDictionary(member => member.Name, member => member.Value.GetString()!), headers);
        }

        if (wanted.TryGetProperty("forbid_headers", out JsonElement forbidden) && forbidden.ValueKind == JsonValueKind.Array)
        {
            foreach (JsonElement pattern in forbidden.EnumerateArray())
            {
                Assert.DoesNotContain(headers.Keys, name => FileSystemName.MatchesSimpleExpression(pattern.GetString(), name, ignoreCase: true));
            }
        }
    }

    /// <summary>A result of the vectors, with payloads as base64.</summary>
    private static JsonNode? Expected(JsonNode? value)
    {
        switch (value)
        {
            case JsonObject members:
                JsonObject result = [];
                foreach ((string name, JsonNode? member) in members)
                {
                    result[name] = name == "payload" && member is JsonObject form
                        ? (form["base64"]?.DeepClone() ?? Convert.ToBase64String(Encoding.UTF8.GetBytes((string)form["text"]!)))
                        : Expected(member);
                }

                return result;
            case JsonArray items:
                return new JsonArray([.. items.Select(Expected)]);
            default:
                return value?.DeepClone();
        }
    }

    /// <summary>A result of the dispatch, with the names of the specification.</summary>
    private static JsonNode? Plain(JsonNode? value)
    {
        return value switch
        {
            JsonObject members => new JsonObject(members.Select(member => KeyValuePair.Create(
                member.Key is "payload_b64" or "status_json" ? member.Key[..member.Key.LastIndexOf('_')] : member.Key, Plain(member.Value)))),
            JsonArray items => new JsonArray([.. items.Select(Plain)]),
            _ => value?.DeepClone(),
        };
    }

    /// <summary>JSON with sorted members; 1 and 1.0 stay different.</summary>
    private static string Canonical(JsonNode? value)
    {
        return value switch
        {
            JsonObject members => "{" + string.Join(",", members.OrderBy(member => member.Key, StringComparer.Ordinal)
                .Select(member => JsonSerializer.Serialize(member.Key) + ":" + Canonical(member.Value))) + "}",
            JsonArray items => "[" + string.Join(",", items.Select(Canonical)) + "]",
            null => "null",
            _ => value.ToJsonString(Deep),
        };
    }
}
