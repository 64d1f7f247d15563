using System.Reflection;
using System.Runtime.Versioning;
using Xunit;

namespace Mq9.Tests;

/// <summary>The library that these tests run on.</summary>
public sealed class LibraryTests
{
    [Fact]
    public void ItIsTheBuildThatIsToBeTested()
    {
        string framework = Environment.GetEnvironmentVariable("MQ9_LIBRARY_FRAMEWORK") ?? "net10.0";
        TargetFrameworkAttribute built = typeof(Mq9Client).Assembly.GetCustomAttribute<TargetFrameworkAttribute>()!;
        Assert.Equal(".NETCoreApp,Version=v" + framework[3..], built.FrameworkName);
    }
}
