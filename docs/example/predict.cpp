// Score, label and most anomalous pixel of an image, with an exported file: predict part.onnx image.rgb WIDTH HEIGHT
// image.rgb has the bytes R, G, B of each pixel, row by row. Compiled by: g++ -O2 predict.cpp -lonnxruntime -o predict
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

int main(int count, char** text) {
  if (count != 5) return std::cerr << "usage: predict MODEL IMAGE WIDTH HEIGHT\n", 2;
  std::ifstream file(text[2], std::ios::binary);
  std::vector<uint8_t> pixels(std::istreambuf_iterator<char>(file), {});
  const int64_t width = std::stoll(text[3]), height = std::stoll(text[4]);
  if (int64_t(pixels.size()) != 3 * width * height) return std::cerr << "the image has another size\n", 1;

  Ort::Env environment;
  Ort::Session session(environment, text[1], Ort::SessionOptions());  // once, for all images
  const std::vector<int64_t> shape{1, height, width, 3};
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto image = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
  const char* input[] = {"image"};
  const char* outputs[] = {"anomaly_score", "label", "anomaly_map"};
  auto found = session.Run(Ort::RunOptions(), input, &image, 1, outputs, 3);

  const float* map = found[2].GetTensorData<float>();
  const int64_t place = std::max_element(map, map + width * height) - map;
  std::cout << "score " << *found[0].GetTensorData<float>() << "\nlabel " << *found[1].GetTensorData<int64_t>()
            << "\nrow " << place / width << " column " << place % width << "\n";
}
