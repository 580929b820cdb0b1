// Score, label and most anomalous pixel of an image, with an exported file: predict part.onnx image.rgb WIDTH HEIGHT
// image.rgb has the bytes R, G, B of each pixel, row by row. It needs: dotnet add package Microsoft.ML.OnnxRuntime
using System;
using System.IO;
using System.Linq;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

static class Program
{
    static int Main(string[] args)
    {
        byte[] pixels = File.ReadAllBytes(args[1]);
        int width = int.Parse(args[2]), height = int.Parse(args[3]);
        if (pixels.Length != 3 * width * height) { Console.Error.WriteLine("the image has another size"); return 1; }

        using (var session = new InferenceSession(args[0]))  // once, for all images
        {
            var image = new DenseTensor<byte>(pixels, new[] { 1, height, width, 3 });
            var input = new[] { NamedOnnxValue.CreateFromTensor("image", image) };
            using (var found = session.Run(input, new[] { "anomaly_score", "label", "anomaly_map" }))
            {
                float score = found.First(value => value.Name == "anomaly_score").AsTensor<float>().First();
                long label = found.First(value => value.Name == "label").AsTensor<long>().First();
                float[] map = found.First(value => value.Name == "anomaly_map").AsTensor<float>().ToArray();
                int place = Array.IndexOf(map, map.Max());
                Console.WriteLine($"score {score}\nlabel {label}\nrow {place / width} column {place % width}");
            }
        }
        return 0;
    }
}
